"""Base class of errors whose text may be logged."""

from __future__ import annotations


class LoggableError(Exception):
    """An error whose text contains nothing that a client sent."""
