"""Import of files: errors to events, decisions and result lines."""
