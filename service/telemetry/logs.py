"""Logs: one line of JSON or text for each thing that happened, to standard error.

What is logged is a phrase and a few facts. What is known of the request under way (`request_id`, `trace_id`, `principal`, `decision_id`)
stands on every line that is written meanwhile. A line never quotes what a client sent: of an error that nobody foresaw it says the type and
the place, since its text may well be a piece of an event. What a client may choose, such as its request's id, is hidden where it is a key.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic
from traceback import extract_tb
from typing import Any, Final, Literal

from pydantic_core import to_json

from ras_triage.service.api.errors import LoggableError
from ras_triage.service.api.escaping import escape, escape_json, valid_text
from ras_triage.service.telemetry.redaction import hidden

Fact = str | int | float | bool | None
Format = Literal["json", "text"]
Level = Literal["debug", "info", "warning", "error"]

_LOG = logging.getLogger("ras_triage")
_AUDIT = logging.getLogger("ras_triage.audit")

CONNECTIONS: Final = "uvicorn.error.connection"
"""Logger of uvicorn's connections. It warns of each malformed request and each `Upgrade`, with which a client could fill the log."""

_UNDER_WAY: ContextVar[dict[str, Fact] | None] = ContextVar("under_way", default=None)

_MAX_FRAMES = 30
_SPOKEN_FREELY = (LoggableError, OSError, sqlite3.Error)
"""Errors whose text is the machine's: it holds nothing that a client sent."""


def begin(**facts: Fact) -> dict[str, Fact]:
    """Forget the request before, and know this of the one that begins. What `bind` adds shows in the mapping returned."""
    known = dict(facts)
    _UNDER_WAY.set(known)
    return known


def bind(**facts: Fact) -> None:
    """Know more of the request under way, in whichever task or thread of it this is called. Without a request it does nothing."""
    known = _UNDER_WAY.get()
    if known is not None:
        known.update(facts)


def bound() -> Mapping[str, Fact]:
    """What is known of the request under way."""
    return _UNDER_WAY.get() or {}


def log(level: int, event: str, /, *, logger: logging.Logger = _LOG, **facts: Fact) -> None:
    """Write one line. `event` is a constant phrase: everything that varies is a fact."""
    if logger.isEnabledFor(level):
        logger.handle(_record(logger.name, level, event, facts))


class LogRateLimit:
    """A limit for log lines that a client can cause: so many of one kind in a period, and a count of those suppressed."""

    def __init__(self, lines: int = 5, period_s: float = 1.0, clock: Callable[[], float] = monotonic) -> None:
        self._lines, self._period_s, self._clock = lines, period_s, clock
        self._kinds: dict[str, _Period] = {}

    def allows(self, kind: str) -> tuple[bool, int]:
        """Return whether a line of this kind may be written now, and how many were suppressed before it. Kinds are constants."""
        now = self._clock()
        period = self._kinds.setdefault(kind, _Period(now))
        suppressed = 0
        if now - period.since >= self._period_s:
            suppressed = period.suppressed
            period.since, period.written, period.suppressed = now, 0, 0
        if period.written >= self._lines:
            period.suppressed += 1
            return False, 0
        period.written += 1
        return True, suppressed

    def take_suppressed(self) -> list[tuple[str, int]]:
        """Return the kinds whose period is over, with the suppressed lines that no later line told of."""
        now = self._clock()
        over = [(kind, period) for kind, period in self._kinds.items() if period.suppressed and now - period.since >= self._period_s]
        found = [(kind, period.suppressed) for kind, period in over]
        for _, period in over:
            period.suppressed = 0
        return found


@dataclass(slots=True)
class _Period:
    since: float
    written: int = 0
    suppressed: int = 0


_LIMIT = LogRateLimit()


def log_limited(
    level: int, event: str, /, *, kind: str, limit: LogRateLimit | None = None, logger: logging.Logger = _LOG, **facts: Fact
) -> None:
    """Write one line, unless too many of its kind were written within the last second; `suppressed` counts those."""
    allowed, suppressed = (limit or _LIMIT).allows(kind)
    if allowed:
        log(level, event, logger=logger, **facts, **({"suppressed": suppressed} if suppressed else {}))


def report_suppressed() -> None:
    """Write how many lines were suppressed, of kinds of which none came since."""
    for kind, count in _LIMIT.take_suppressed():
        log(logging.WARNING, "log lines suppressed", kind=kind, suppressed=count)


def audit(action: str, target: str, principal: str | None, **facts: Fact) -> None:
    """Write who changed what. It is written at every level of logging.

    `action` is a verb and its object (`host.put`, `key.revoke`), `target` what it was done to, by its public name.
    """
    _AUDIT.handle(_record(_AUDIT.name, logging.INFO, "audit", {"action": action, "target": target, "principal": principal, **facts}))


def _record(name: str, level: int, event: str, facts: Mapping[str, Fact]) -> logging.LogRecord:
    record = logging.LogRecord(name, level, "", 0, event, None, None)
    record.facts = facts
    return record


def config(style: Format = "text", level: Level = "info") -> dict[str, Any]:
    """What `logging.config.dictConfig` and uvicorn's `log_config` take. Other libraries are heard from WARNING on."""
    ours = {"level": level.upper()}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": JsonLines if style == "json" else TextLines}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "stream": "ext://sys.stderr", "formatter": "line"}},
        "root": {"handlers": ["stderr"], "level": "WARNING"},
        "loggers": {"ras_triage": ours, "uvicorn": ours, CONNECTIONS: {"level": "ERROR"}, "ras_triage.audit": {"level": "INFO"}},
    }


class JsonLines(logging.Formatter):
    """A line is a JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        return hidden(_json(_line(record)))


class TextLines(logging.Formatter):
    """A line is a time, a level, a logger, a phrase and `name=value` pairs, without control characters of anybody's choosing."""

    def format(self, record: logging.LogRecord) -> str:
        line = _line(record)
        head = f"{line.pop('time')} {line.pop('level'):<7} {line.pop('logger')}: {escape(line.pop('event'))}"
        return hidden(" ".join([head, *(f"{name}={_quoted(fact)}" for name, fact in line.items())]))


def _quoted(fact: Fact | list[str]) -> str:
    if isinstance(fact, str) and fact == escape(fact) and fact and not set(fact) & set(' "='):
        return fact
    return _json(fact)


def _json(value: Any) -> str:
    return escape_json(to_json(value, inf_nan_mode="null", fallback=str)).decode()


def _line(record: logging.LogRecord) -> dict[str, Any]:
    line: dict[str, Any] = {
        "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": record.levelname.lower(),
        "logger": record.name,
        "event": _event(record),
        **bound(),
    }
    line.update(getattr(record, "facts", {}))
    if record.exc_info and record.exc_info[1] is not None:
        line.update(explain(record.exc_info[1]))
    return {name: _spelt(fact) for name, fact in line.items()}


def _spelt(fact: Any) -> Any:
    """A fact as text can hold it: of half a surrogate pair its number."""
    if isinstance(fact, list):
        return [_spelt(part) for part in fact]
    return valid_text(fact) if isinstance(fact, str) else fact


def _event(record: logging.LogRecord) -> str:
    """The text of a line. Of what asyncio complains about only the first line: the rest shows objects with all that they hold."""
    text = record.getMessage().strip()
    return text.partition("\n")[0] if record.name == "asyncio" else text


def explain(error: BaseException) -> dict[str, Any]:
    """An error as facts: its type, what caused it, where it was raised, and its text if the text is the machine's own."""
    facts: dict[str, Any] = {"error": " from ".join(_names(error))}
    if isinstance(error, _SPOKEN_FREELY):
        facts["reason"] = str(error)
    frames = extract_tb(error.__traceback__, limit=-_MAX_FRAMES)
    facts["frames"] = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
    return facts


def _names(error: BaseException) -> list[str]:
    names: list[str] = []
    chain: BaseException | None = error
    while chain is not None and len(names) < 5:
        names.append(type(chain).__qualname__)
        chain = chain.__cause__ or chain.__context__
    return names
