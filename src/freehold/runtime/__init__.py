"""The runtime floor."""
