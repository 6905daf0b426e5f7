"""The straight line from a recipe to verified exports, and what goes along it."""
