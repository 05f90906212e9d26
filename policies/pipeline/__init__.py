"""Stages of error handling in the kernel."""
