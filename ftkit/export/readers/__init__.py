"""Scripts that measure an artefact in the engine that it is for; each runs alone, with nothing of ftkit."""
