"""Content negotiation by quality values (RFC 9110 12.4.2)."""

from __future__ import annotations


def qualities(header: str) -> dict[str, float]:
    """Return the quality of each media type or content coding that a header names, in lower case; 0: not acceptable, or malformed."""
    found: dict[str, float] = {}
    for part in header.split(","):
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        texts = [text.removeprefix("q=") for text in parameters if text.startswith("q=")]
        try:
            found[name] = float(texts[0]) if texts else 1.0
        except ValueError:
            found[name] = 0.0
    return found
