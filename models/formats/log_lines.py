"""Lines of a kernel log: what the tools that carry it put before the kernel's own text, and how mail wraps it.

Known forms: dmesg with or without stamps, `dmesg -x` and `-T`, the caller field of CONFIG_PRINTK_CALLER, journald (`short`, `short-iso`),
syslog, serial consoles, pstore's level prefixes, quoted mail.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

from models.value import value

MAX_LINE: Final = 8192
"""Bytes of a line that are looked at; the kernel's own lines end before 1024."""

_ISO = r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?"
_BSD = r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d(?:\.\d{1,9})?"
_LEVELS = ("emerg", "alert", "crit", "err", "warn", "notice", "info", "debug")
_QUOTES = re.compile(r"[>\s]*")
_PREFIX = re.compile(
    r"(?P<quotes>[>\s]*)(?:<(?P<level>\d{1,3})>)?"
    rf"(?:(?P<when>{_ISO}|{_BSD})\s+(?:(?P<host>\S{{1,256}})\s+kernel(?:\[\d+\])?:\s*)?)?"
    rf"(?:(?:kern|user|daemon|syslog)\s{{0,4}}:(?P<priority>{'|'.join(_LEVELS)})\s{{0,4}}:\s*)?"
    r"(?:\[\s*(?:(?P<uptime>\d{1,12}\.\d{1,9})|[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d [\d:]{8} \d{4})\]\s*)?"
    r"(?:\[\s*(?P<caller>[TC]\d{1,10})\]\s*)?"
)
_HARDWARE_ERROR = re.compile(r"(?:\{(?P<seq>\d{1,10})\})?\[Hardware Error\]: ?")
_NUMBERED = re.compile(r"\{\d{1,10}\}\[Hardware Error\]: ?")
_TIME_OF_DAY = re.compile(r"\d:\d\d")
_COLOUR = re.compile(rb"\x1b\[[\d;]*m")
_PADDING: Final = "=20"
"""What quoted-printable writes for a space at the end of a line."""
_LEVEL_MASK = 7


@value
class LogLine:
    """One line, taken apart."""

    number: int
    """From 1."""
    text: str
    """The kernel's own text; of a line of an error record without its number and `[Hardware Error]: `. One character is one byte."""
    is_record: bool
    """Whether it is marked as a line of an error record."""
    sequence: int | None
    """The record's number, `{n}` (`__ghes_print_estatus`)."""
    host: str | None
    when: datetime | None
    """Where date, year and time zone are told."""
    uptime: float | None
    """Seconds since boot."""
    level: int | None
    """0 emergency to 7 debug (syslog(2))."""
    caller: str | None
    """`T` and thread id or `C` and CPU number."""
    origin: str
    """The words that stand before the record's number and are no prefix that is known here."""
    is_marked: bool
    """Whether anything marks it as a line of its own, and not the rest of the line before."""
    is_whole: bool
    """Whether its end is known to be there: a number at the end of a line that is cut may lack digits."""


def text_of(raw: bytes) -> str:
    """The line's text without line end and colours. One character is one byte."""
    raw = raw[:MAX_LINE].rstrip(b"\r\n\0")
    if b"\x1b" in raw:
        raw = _COLOUR.sub(b"", raw)
    return raw.decode("latin-1")


def unquoted(text: str) -> str:
    """The text without mail quotes and indentation."""
    return text[_QUOTES.match(text).end() :]  # type: ignore[union-attr]


def read_line(text: str, number: int, is_whole: bool = True) -> LogLine:
    """Take a line apart; never fails."""
    prefix = _PREFIX.match(text)
    assert prefix is not None, "every part of the pattern is optional"
    quotes, level, when, host, priority, uptime, caller = prefix.groups()
    start = prefix.end()
    found = _HARDWARE_ERROR.match(text, start)
    origin = ""
    if found is None and (numbered := _NUMBERED.search(text, start)):
        origin = " ".join(filter(_names_something, text[start : numbered.start()].split()))
        found = _HARDWARE_ERROR.match(text, numbered.start())
    sequence = found[1] if found else None
    return LogLine(
        number,
        text[found.end() if found else start :].removesuffix(_PADDING).strip(),
        found is not None,
        int(sequence) if sequence else None,
        host,
        _moment(when) if when else None,
        float(uptime) if uptime else None,
        _level(level, priority),
        caller,
        origin,
        found is not None or start > len(quotes),
        is_whole,
    )


def _names_something(word: str) -> bool:
    """Whether a word stays the same on all lines of a record: it is no number and no time."""
    return any(map(str.isalpha, word)) and not _TIME_OF_DAY.search(word)


def _level(number: str | None, name: str | None) -> int | None:
    if number:
        return int(number) & _LEVEL_MASK
    return _LEVELS.index(name) if name else None


def _moment(text: str) -> datetime | None:
    """A moment in UTC, where year and time zone are told."""
    if not text[0].isdigit():
        return None
    try:
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC) if moment.tzinfo else None
    except (ValueError, OverflowError):
        return None
