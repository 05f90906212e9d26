"""The ASGI application and what is specific to HTTP."""
