"""Store of decisions: interface, SQLite implementation, writer thread."""
