"""The application: HTTP, command line, and what people read. It holds no rule about hardware errors."""
