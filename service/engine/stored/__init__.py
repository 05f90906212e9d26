"""Stored decisions: what they were made from, and the same event decided again."""
