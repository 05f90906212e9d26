"""Tables of expected decisions."""
