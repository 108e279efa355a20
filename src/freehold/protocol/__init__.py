"""The protocol floor."""
