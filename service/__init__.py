"""HTTP service, command line, store and client."""
