"""Files of the SQLite store and their file system."""
