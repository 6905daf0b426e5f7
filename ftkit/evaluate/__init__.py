"""Measuring a model: loss on supervised tokens, greedy answers, and scores of answers."""
