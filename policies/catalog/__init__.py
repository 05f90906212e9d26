"""Policies as data: behaviour flags, kernel releases and VMMs."""
