"""The pure reconcile core of the node agent: events in, instructions out."""
