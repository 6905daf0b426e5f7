"""The command line: one file a verb; each parses, calls one library function and prints.

The library is imported inside each command, so that help and mistakes answer before torch is loaded.
"""
