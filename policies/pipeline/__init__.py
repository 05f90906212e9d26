"""Stages of error handling in the kernel, and their shared types."""
