"""The consensus floor."""
