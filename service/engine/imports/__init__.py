"""Errors found in files, on their way to decisions."""
