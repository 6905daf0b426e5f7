"""Scripts that run in processes of their own, with nothing of ftkit."""
