"""Exports: written, described, and proven to behave like the trained model."""
