"""Logs, metrics, traces, redaction."""
