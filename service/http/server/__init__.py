"""uvicorn server with its own accept loop, connection limits and head check."""
