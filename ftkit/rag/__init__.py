"""Answers from documents: a corpus, what finds passages in it, and what reads them."""
