"""Pages that commands print for people."""
