"""Concurrency limits, admission, scheduling and deadlines of requests."""
