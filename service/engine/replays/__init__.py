"""Decisions of the same events under two policies."""
