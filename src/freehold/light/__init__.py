"""The light floor."""
