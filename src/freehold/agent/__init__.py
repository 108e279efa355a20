"""The agent floor."""
