"""The client floor."""
