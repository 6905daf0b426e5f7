"""Data: from files to token ids and loss masks, every row accounted for."""
