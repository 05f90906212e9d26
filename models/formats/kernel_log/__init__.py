"""Kernel log parser: text lines to error records and observed actions."""
