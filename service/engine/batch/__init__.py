"""Batches: splitting, worker processes, buffering of results."""
