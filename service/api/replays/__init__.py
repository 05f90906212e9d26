"""Types of replays and of their changes."""
