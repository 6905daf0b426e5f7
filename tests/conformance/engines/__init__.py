"""Scripts that an engine's own environment runs; they import nothing of ftkit."""
