"""The rpc floor."""
