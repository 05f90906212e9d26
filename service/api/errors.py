"""Base class of errors whose text may be logged."""

from __future__ import annotations


class LoggableError(Exception):
    """An error whose text quotes nothing that a client sent."""
