"""Event engine: from event bytes to a durable response."""
