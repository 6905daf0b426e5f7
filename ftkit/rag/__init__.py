"""Retrieval-augmented generation: corpus, index, retriever and generator trained together, answers with sources."""
