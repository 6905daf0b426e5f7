"""Retrieval: from files to documents and passages, each of which can be cited by its place in the source."""
