"""Training: the one seam to transformers' Trainer."""
