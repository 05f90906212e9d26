"""Data model of hardware errors: events, host facts, CPER and decisions.

This package contains no decision logic and does no I/O.
"""
