"""Kernel log lines: prefix formats of log tools, and the message behind them.

Known prefixes: dmesg with or without timestamps and in each of its time formats, `dmesg -x`, /dev/kmsg and netconsole, the caller field of
CONFIG_PRINTK_CALLER, journald's `short` formats, syslog (RFC 3164 and 5424), serial consoles, pstore level prefixes, quoted mail. Behind
any other prefix the message begins at a record number or at the start of a known message.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

from ras_triage.models.frozen import frozen
from ras_triage.models.times import to_utc

FORMAT: Final = "kernel_log"

MAX_LINE: Final = 8192
"""Bytes of a line that are parsed; the kernel's own lines are shorter than 1024."""

_CLOCK_SLACK: Final = 1.0
"""Seconds by which timestamps of different CPUs may differ."""
_LINE_SIZE: Final = 200
"""Bytes of memory for each line beside its text."""

_TIME = r"\d\d:\d\d:\d\d(?:[.,]\d{1,9})?"
_WORD = r"[^\s\d\[\]]{1,16}"
"""A month or day in any language."""
_WHEN = "|".join((
    rf"\d{{4}}-\d\d-\d\d[T ]{_TIME}(?:Z|[+-]\d\d:?\d\d)?",
    rf"[A-Z][a-z]{{2}} [ \d]\d {_TIME}",
    rf"{_WORD} \d{{4}}-\d\d-\d\d {_TIME} [A-Z+-]\S{{0,9}}",  # journald's `short-full`
    rf"[A-Z][a-z]{{2}} [A-Z][a-z]{{2}} [ \d]\d {_TIME} \d{{4}}",
    r"\d{9,11}\.\d{6}",  # journald's `short-unix`
))  # fmt: skip
_BRACKETED = "|".join((
    r"(?P<uptime>\d{1,12}\.\d{1,9})",
    rf"{_WORD} {_WORD} {{1,2}}\d{{1,2}} {_TIME}(?: [A-Z]{{2,5}})? \d{{4}}",  # `dmesg -T`, and crash's `log -T`
    r"[A-Z][a-z]{2} ?\d{1,2} \d\d:\d\d",  # `dmesg -e`, where a minute begins
    r"\+\d{1,9}\.\d{1,9}",  # and within it
))  # fmt: skip
_LEVELS = ("emerg", "alert", "crit", "err", "warn", "notice", "info", "debug")
_TAG = (
    rf"(?:(?:kern|user|daemon|syslog)\.(?:{'|'.join(_LEVELS)}) )?kernel(?:\[\d{{1,10}}\])?(?:: ?|(?: -){{2}} (?:- |\[[^\]]{{0,999}}\] ?))"
)
"""The syslog tag, followed by a colon or by the fields of RFC 5424."""
_COLLECTED = r"(?:\x1d(?P<collected>[^\x1d]{1,256})\x1d)?"
"""The mark of `collected_from`."""
_QUOTES = re.compile(_COLLECTED + r"[>\s]*")
_LINE_START = r"\[\s*\d{1,12}\.\d{1,9}\]|\{\d{1,10}\}\[Hardware|<\d|[A-Z][a-z]{2} [ \d]\d \d\d:|\d{4}-\d\d-\d\d[T ]\d\d:"
"""Start of a line behind the name of its file: a time, a level, a record."""
_NAME = r"(?!<|kernel[\[:])(?:[A-Za-z]:)?"
"""Start of the name of a file, which is no tag of syslog."""
_FILE = (
    rf"(?:{_NAME}[^\s:\[\]{{}}]{{1,256}}:)?\d{{1,9}}:(?:(?=[\[<A-Za-z])| ?(?=\[Hardware|{_LINE_START}))"
    rf"|{_NAME}[^\s:\[\]{{}}]{{1,256}}: ?(?={_LINE_START})"
    rf"|(?:{_NAME}[^\s\[\]{{}}]{{1,256}}-)?\d{{1,9}}-(?={_LINE_START})"
)
"""`file:line:` of a log collector, what `grep -n` and `grep -H` print, and the form of the lines beside a match (`grep -C`)."""
_PREFIX = re.compile(
    rf"{_COLLECTED}(?P<quotes>[>\s]*)"
    rf"(?:MESSAGE=|{_FILE})?"
    r"(?:<(?P<level>\d{1,3})>(?:1 )?)?"
    r"(?:(?:\d\.[\w.+-]{1,64},)?(?P<kmsg>\d{1,4}),\d{1,20},(?P<microseconds>\d{1,20}),[^;\s]{0,64};)?"
    rf"(?:(?P<when>{_WHEN})\s+(?:(?:(?P<host>(?!kern\.)\S{{1,256}})\s+)?{_TAG}\s*)?|{_TAG}\s*)?"
    rf"(?:(?:kern|user|daemon|syslog)\s{{0,4}}:(?P<priority>{'|'.join(_LEVELS)})\s{{0,4}}:\s*)?"
    rf"(?:\[\s*(?:{_BRACKETED})(?:\s*<\s*\d{{1,9}}\.\d{{1,9}}\s?>)?\]\s*)?"
    rf"(?:(?:(?P<beside>[\w.-]{{1,256}})\s+)?{_TAG}\s*)?"  # journald's `short-monotonic`
    r"(?:\[\s*(?P<caller>[TC]\d{1,10})\]\s*)?"
)
_MESSAGES = (
    r"Memory failure: |0x[0-9a-f]{1,16}: |Linux version |Kernel panic - |Internal error: |SError|[Ss]oft[ _]offline"
    r"|\[Firmware Warn\]|GHES: |BERT: |CPU:? ?\d{1,5}:? |Bad mode in Error |Synchronous External Abort: |Unhandled "
    r"|kvm \[|(?:pc : .* )?pstate ?: "
    r"|[^\]:]{1,16}\[\d{1,10}\]: unhandled exception: "
)
_MESSAGE_START = re.compile(rf"(?:\]|\bkernel(?:\[\d{{1,10}}\])?:)\s{{1,4}}(?={_MESSAGES})")
"""Start of a kernel message behind an unknown prefix."""
_HARDWARE_ERROR = re.compile(r"(?:\{(?P<seq>\d{1,10})\})?\[Hardware Error\]: ?")
_NUMBERED = re.compile(r"\{\d{1,10}\}\[Hardware Error\]: ?")
_STAMPED = re.compile(
    rf"\[\s{{0,8}}(?P<uptime>\d{{1,12}}\.\d{{1,9}})\]\s{{1,4}}(?:\[\s*[TC]\d{{1,10}}\]\s{{1,4}})?"
    rf"(?=(?:\{{\d{{1,10}}\}})?\[Hardware Error\]|{_MESSAGES})"
)
"""Time since boot and start of a kernel message behind an unknown prefix."""
_LINE_NUMBER = re.compile(r":\d{1,9}[:\]]*$")
_TIME_OF_DAY = re.compile(r"\d:\d\d")


_PLAIN_RECORD = re.compile(r"\[ *(\d{1,12}\.\d{1,9})\] (?:\{(\d{1,10})\})?\[Hardware Error\]: ?(.*)", re.DOTALL)
"""A line of a record as dmesg prints it: most lines of a log that is dense with records."""
_PLAIN_MESSAGE = re.compile(r"\[ *(\d{1,12}\.\d{1,9})\] ([^\[\]{}]*)")
"""Any other line of dmesg, without the brackets and braces with which a message behind another prefix begins."""


def collected_from(machine: str) -> bytes:
    """Return the mark in front of a line that a log collector names the machine of. It keeps machines apart and is no part of the line."""
    return b"\x1d" + machine.replace("\x1d", " ").encode("utf-8", "replace")[:256] + b"\x1d"


COLOUR: Final = re.compile(rb"\x1b\[[\d;]*m")
_PADDING: Final = "=20"
"""A trailing space in quoted-printable encoding."""
_LEVEL_MASK = 7


@frozen
class LogLine:
    """One parsed line."""

    number: int
    """Line number, from 1."""
    text: str
    """The kernel message; in an error record, without the record number and `[Hardware Error]: `. One character is one byte."""
    is_record: bool
    """Whether the line has the `[Hardware Error]: ` mark of an error record."""
    sequence: int | None
    """The record number, `{n}` (`__ghes_print_estatus`)."""
    host: str | None
    when: datetime | None
    """Only if the line has date, year and time zone."""
    uptime: float | None
    """Seconds since boot."""
    level: int | None
    """0 emergency to 7 debug (syslog(2))."""
    caller: str | None
    """`T` and thread id, or `C` and CPU number."""
    origin: str
    """Words of an unknown prefix before the message."""
    is_marked: bool
    """Whether a prefix or mark shows that this is a line of its own, not the continuation of the line before."""
    is_whole: bool
    """Whether the end of the line is known to be complete: a number at the end of a truncated line may lack digits."""

    @property
    def machine(self) -> tuple[str | None, str]:
        """Return the key that separates machines in one log."""
        return self.host, self.origin


def memory_size(text: str) -> int:
    """Return the bytes of memory that a line with this text takes, approximately."""
    return len(text) + _LINE_SIZE


def seconds_between(before: LogLine, line: LogLine) -> float | None:
    """Return the seconds from one line to another of the same boot; None if a time is not known."""
    if before.uptime is not None and line.uptime is not None:
        return line.uptime - before.uptime
    if before.when is not None and line.when is not None:
        return (line.when - before.when).total_seconds()
    return None


def follows(before: LogLine, line: LogLine, seconds: float) -> bool:
    """Return whether a line can be at most `seconds` after an earlier one of the same boot."""
    apart = seconds_between(before, line)
    return apart is None or -_CLOCK_SLACK <= apart <= seconds


def line_text(raw: bytes) -> str:
    """Return the line without its line ending. One character is one byte."""
    return raw[:MAX_LINE].rstrip(b"\r\n\0").decode("latin-1")


def strip_quoting(text: str) -> str:
    """Return the text without mail quotes and indentation."""
    return text[_QUOTES.match(text).end() :]  # type: ignore[union-attr]


def parse_line(text: str, number: int, *, is_whole: bool = True) -> LogLine:
    """Parse a line; never raises."""
    if plain := _PLAIN_RECORD.fullmatch(text):
        uptime, sequence, message = plain.groups()
        return _plain_line(message, number, uptime, is_whole=is_whole, sequence=int(sequence) if sequence else None, is_record=True)
    if "kernel" not in text and (plain := _PLAIN_MESSAGE.fullmatch(text)):
        return _plain_line(plain[2], number, plain[1], is_whole=is_whole)
    prefix = _PREFIX.match(text)
    assert prefix is not None, "every part of the pattern is optional"
    collected, _, level, kmsg, microseconds, when, host, priority, uptime, beside, caller = prefix.groups()
    start = prefix.end()
    is_marked = start > prefix.end("quotes")
    found = _HARDWARE_ERROR.match(text, start)
    origin = [collected] if collected else []
    if found is None and (stamped := _STAMPED.search(text, start)):
        origin += _stable_words(text[start : stamped.start()])
        uptime, start, is_marked = stamped["uptime"], stamped.end(), True
        found = _HARDWARE_ERROR.match(text, start)
    elif found is None and (begins := _find_message(text, start)):
        origin += _stable_words(text[start:begins])
        found = _HARDWARE_ERROR.match(text, begins)
        start, is_marked = begins, True
    sequence = found[1] if found else None
    return LogLine(
        number=number,
        text=text[found.end() if found else start :].removesuffix(_PADDING).strip(),
        is_record=found is not None,
        sequence=int(sequence) if sequence else None,
        host=host or beside,
        when=_moment(when) if when else None,
        uptime=float(uptime) if uptime else int(microseconds) / 1e6 if microseconds else None,
        level=_level(level or kmsg, priority),
        caller=caller,
        origin=" ".join(origin),
        is_marked=found is not None or is_marked,
        is_whole=is_whole,
    )


def _plain_line(
    message: str, number: int, uptime: str, *, is_whole: bool, sequence: int | None = None, is_record: bool = False
) -> LogLine:  # fmt: skip
    """Return a line of dmesg with its time since boot."""
    text = message.removesuffix(_PADDING).strip()
    return LogLine(number, text, is_record, sequence, None, None, float(uptime), None, None, "", True, is_whole)


def _find_message(text: str, start: int) -> int | None:
    """Return the offset of a known kernel message behind an unknown prefix; None if there is none."""
    if numbered := _NUMBERED.search(text, start):
        return numbered.start()
    other = _MESSAGE_START.search(text, start)
    return other.end() if other else None


def _stable_words(prefix: str) -> list[str]:
    """Return the words of a prefix that are the same on all lines of a machine: neither numbers nor times, and without line numbers."""
    words = (_LINE_NUMBER.sub("", word) for word in prefix.split())
    return [word for word in words if any(map(str.isalpha, word)) and not _TIME_OF_DAY.search(word)]


def _level(number: str | None, name: str | None) -> int | None:
    if number:
        return int(number) & _LEVEL_MASK
    return _LEVELS.index(name) if name else None


def _moment(text: str) -> datetime | None:
    """Return the time in UTC; None unless the text has year and time zone."""
    if not text[0].isdigit():
        return None
    try:
        if "-" not in text:
            return datetime.fromtimestamp(float(text), UTC)
        moment = datetime.fromisoformat(text)
        return to_utc(moment) if moment.tzinfo else None
    except (ValueError, OverflowError):
        return None
