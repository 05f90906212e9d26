"""Server-sent events of decisions."""
