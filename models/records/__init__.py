"""Status blocks and CPER records as bytes."""
