"""An event's way from bytes to a durable response."""
