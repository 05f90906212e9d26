"""Logs, metrics, traces, and escaping of text from outside."""
