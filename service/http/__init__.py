"""HTTP interface: application, routes, middleware, limits, streams and server."""
