"""The transport floor."""
