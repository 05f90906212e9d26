"""libcper JSON parser: records and sections, converted back to bytes."""
