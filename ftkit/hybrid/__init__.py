"""Tuned models and retrieval together."""
