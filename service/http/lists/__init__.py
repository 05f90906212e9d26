"""Lists and counts: filters, cursors, conversion to JSON and CSV."""
