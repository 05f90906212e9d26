"""Files of the SQLite store and the file system under them."""
