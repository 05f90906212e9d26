"""Catalogue of behaviour flags, kernel releases, policies and VMMs."""
