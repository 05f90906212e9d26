"""Structured logs on standard error: one line of JSON or text per log event.

A line has a constant phrase and some facts. The context of the current request (`request_id`, `trace_id`, `principal`, `decision_id`) is
added to every line. A line never quotes a request: of an unexpected exception it has the type and the location, since the text may quote
an event. API keys in values that a client can choose, such as the request id, are redacted.
"""

from __future__ import annotations

import logging
import re
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
from ras_triage.service.telemetry.redaction import redact

LogValue = str | int | float | bool | None
Format = Literal["json", "text"]
Level = Literal["debug", "info", "warning", "error"]

_LOG = logging.getLogger("ras_triage")
_AUDIT = logging.getLogger("ras_triage.audit")

CONNECTIONS: Final = "uvicorn.error.connection"
"""Logger of uvicorn's connections. It warns of each malformed request and each `Upgrade`, so that a client could flood the log."""

_CONTEXT: ContextVar[dict[str, LogValue] | None] = ContextVar("log_context", default=None)

_MAX_FRAMES = 30
_UNQUOTED: Final = re.compile(r'[^ "=]+')
"""Text without quotes in a line of text, if it is printable."""
_LOGGABLE = (LoggableError, OSError, sqlite3.Error)
"""Errors whose text contains nothing that a client sent."""


def begin(**facts: LogValue) -> dict[str, LogValue]:
    """Start the log context of a request. Return the context, to which `bind` adds."""
    known = dict(facts)
    _CONTEXT.set(known)
    return known


def bind(**facts: LogValue) -> None:
    """Add facts to the log context of the current request, from any of its tasks or threads. No-op without a request."""
    known = _CONTEXT.get()
    if known is not None:
        known.update(facts)


def bound() -> Mapping[str, LogValue]:
    """Return the log context of the current request."""
    return _CONTEXT.get() or {}


def log(level: int, event: str, /, *, logger: logging.Logger = _LOG, **facts: LogValue) -> None:
    """Write one line. `event` is a constant phrase; everything variable is a fact."""
    if logger.isEnabledFor(level):
        logger.handle(_record(logger.name, level, event, facts))


class LogRateLimit:
    """Rate limit for log lines that a client can cause, by kind, with a count of suppressed lines."""

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
        """Return kinds whose period is over, with the number of suppressed lines that was not logged yet."""
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
    level: int, event: str, /, *, kind: str, limit: LogRateLimit | None = None, logger: logging.Logger = _LOG, **facts: LogValue
) -> None:
    """Write one line, unless the rate limit of its kind is reached; `suppressed` counts the lines before that were not written."""
    allowed, suppressed = (limit or _LIMIT).allows(kind)
    if allowed:
        log(level, event, logger=logger, **facts, **({"suppressed": suppressed} if suppressed else {}))


def report_suppressed() -> None:
    """Log the number of suppressed lines for kinds without a later line."""
    for kind, count in _LIMIT.take_suppressed():
        log(logging.WARNING, "log lines suppressed", kind=kind, suppressed=count)


def audit(action: str, target: str, principal: str | None, **facts: LogValue) -> None:
    """Write an audit line, at every log level.

    `action`: object and verb (`host.put`, `key.revoke`); `target`: public name of the changed object.
    """
    _AUDIT.handle(_record(_AUDIT.name, logging.INFO, "audit", {"action": action, "target": target, "principal": principal, **facts}))


def omit_unused_fields() -> None:
    """Omit from log records what no format here has, for the whole process: names of threads and processes take a third of their cost."""
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


def _record(name: str, level: int, event: str, facts: Mapping[str, LogValue]) -> logging.LogRecord:
    record = logging.LogRecord(name, level, "", 0, event, None, None)
    record.facts = facts
    return record


def config(style: Format = "text", level: Level = "info") -> dict[str, Any]:
    """Return the configuration for `logging.config.dictConfig` and uvicorn's `log_config`. Other libraries log from WARNING on."""
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
    """Formatter: a JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(_json(_line(record)))


class TextLines(logging.Formatter):
    """Formatter: time, level, logger, phrase and `name=value` pairs, with control characters escaped."""

    def format(self, record: logging.LogRecord) -> str:
        line = _line(record)
        head = f"{line.pop('time')} {line.pop('level'):<7} {line.pop('logger')}: {escape(line.pop('event'))}"
        return redact(" ".join([head, *(f"{name}={_quoted(fact)}" for name, fact in line.items())]))


def _quoted(fact: LogValue | list[str]) -> str:
    if type(fact) is int:
        return str(fact)
    if isinstance(fact, str) and _UNQUOTED.fullmatch(fact) and fact == escape(fact):
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
    return {name: _encodable(fact) for name, fact in line.items()}


def _encodable(fact: Any) -> Any:
    """Return a fact that UTF-8 can encode, with unpaired surrogates escaped."""
    if isinstance(fact, str):
        return fact if fact.isascii() else valid_text(fact)
    return [_encodable(part) for part in fact] if isinstance(fact, list) else fact


def _event(record: logging.LogRecord) -> str:
    """Return the text of a line; for asyncio only its first line, since the rest has the repr of objects with their content."""
    text = record.getMessage().strip()
    return text.partition("\n")[0] if record.name == "asyncio" else text


def explain(error: BaseException) -> dict[str, Any]:
    """Return facts of an exception: types of the chain, stack frames, and its text if that may be logged."""
    facts: dict[str, Any] = {"error": " from ".join(_names(error))}
    if isinstance(error, _LOGGABLE):
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
