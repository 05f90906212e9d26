"""Types of requests and responses on the wire."""
