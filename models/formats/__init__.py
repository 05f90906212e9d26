"""What other tools speak: one module for each, from their bytes or text to events, and back where that is possible."""
