"""Escaping of text from outside for terminals, logs, JSON and TOML."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

_NOT_ASCII: Final = re.compile(r"[^ -~]")

_INVISIBLE: Final = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")
"""Default_Ignorable_Code_Point where `str.isprintable` says yes (Unicode 16.0, DerivedCoreProperties.txt)."""

_PRINTABLE: Final = bytes(range(0x20, 0x7F))


def escape(text: str) -> str:
    """Return text on one line, with characters that control a terminal, reorder text or are invisible as Python escapes.

    These are control and format characters, bidirectional controls, separators other than the space, surrogates, private use and
    unassigned characters, and characters without a glyph.
    """
    return _substitute(text, _python)


def escape_json(document: bytes) -> bytes:
    """Return an equal JSON document on one line, with the characters that `escape` replaces as `\\u` escapes."""
    if not document.translate(None, _PRINTABLE):
        return document
    # in valid JSON these stand between tokens only
    text = document.decode(errors="replace").replace("\r", " ").replace("\n", " ").replace("\t", " ")
    return _substitute(text, _utf16).encode()


def escape_toml(literal: str) -> str:
    """Return an equal TOML string, with the characters that `escape` replaces as `\\u` and `\\U` escapes (TOML 1.0, String)."""
    return _substitute(literal, _toml)


def valid_text(text: str) -> str:
    """Return text that UTF-8 can encode: surrogates, from file names or arguments that are not UTF-8, become Python escapes."""
    return text.encode(errors="backslashreplace").decode()


def _substitute(text: str, spell: Callable[[str], str]) -> str:
    if text.isprintable() and (text.isascii() or not _INVISIBLE.search(text)):
        return text
    return _NOT_ASCII.sub(lambda found: found[0] if _is_shown(found[0]) else spell(found[0]), text)


def _is_shown(char: str) -> bool:
    return char.isprintable() and not _INVISIBLE.match(char)


def _python(char: str) -> str:
    return char.encode("unicode_escape").decode()


def _utf16(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4))


def _toml(char: str) -> str:
    return f"\\u{ord(char):04x}" if ord(char) <= 0xFFFF else f"\\U{ord(char):08x}"
