"""The crypto floor."""
