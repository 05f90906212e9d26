"""JSON of libcper."""
