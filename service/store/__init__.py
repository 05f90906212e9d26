"""Where decisions are kept: a port, SQLite behind it, and a twin in memory."""
