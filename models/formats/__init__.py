"""Parsers and writers for the formats of other tools."""
