"""Systems that answer as one: they train, are asked, measured, served and exported like a RAG run."""
