"""Base models: found, checked, identified and loaded. Import the modules; this file stays empty for a fast start."""
