"""Log lines: formats, escaping, audit events."""

from __future__ import annotations

import contextvars
import json
import logging
import logging.config
import sqlite3
import threading
from collections.abc import Iterator
from io import StringIO
from typing import Any

import pytest

from ras_triage.service.security.keys import create
from ras_triage.service.store.port import StoreUnavailable
from ras_triage.service.telemetry import logs
from tests.service.support.visible_text import is_visible

LOGGERS = ("", "ras_triage", "ras_triage.audit", "uvicorn")


class Log:
    """The log of this process, for as long as a test lasts."""

    def __init__(self, style: logs.Format, level: logs.Level = "info") -> None:
        self.stream = StringIO()
        logging.config.dictConfig(logs.config(style, level))
        for handler in logging.getLogger().handlers:
            if isinstance(handler, logging.StreamHandler):
                handler.setStream(self.stream)

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]


@pytest.fixture(autouse=True)
def _logging_is_left_as_it_was() -> Iterator[None]:
    before = [(logger, logger.level, list(logger.handlers)) for logger in map(logging.getLogger, LOGGERS)]
    yield
    for logger, level, handlers in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers


@pytest.fixture
def log() -> Log:
    return Log("json")


@pytest.fixture
def text_log() -> Log:
    return Log("text")


def in_a_context_of_its_own(function: Any) -> None:
    contextvars.copy_context().run(function)


def test_a_line_is_one_object_with_time_level_logger_event_and_facts(log: Log) -> None:
    logs.log(logging.WARNING, "store is slow", seconds=1.5, what="a\nb")

    (line,) = log.lines
    assert line.pop("time").endswith("Z")
    assert line == {"level": "warning", "logger": "ras_triage", "event": "store is slow", "seconds": 1.5, "what": "a\nb"}


def test_what_is_bound_to_a_request_is_on_all_its_lines_and_on_none_of_the_next_ones(log: Log) -> None:
    def requests() -> None:
        logs.begin(request_id="r-1")
        logs.bind(principal="fleet")
        threading.Thread(target=contextvars.copy_context().run, args=(lambda: logs.bind(decision_id="d-1"),)).start()
        logs.log(logging.INFO, "one")
        logs.begin(request_id="r-2")
        logs.log(logging.INFO, "two")

    in_a_context_of_its_own(requests)
    one, two = log.lines
    assert (one["request_id"], one["principal"], one["decision_id"]) == ("r-1", "fleet", "d-1")
    assert two["request_id"] == "r-2"
    assert "principal" not in two


def test_binding_without_a_request_is_without_effect(log: Log) -> None:
    in_a_context_of_its_own(lambda: (logs.bind(principal="x"), logs.log(logging.INFO, "event")))

    assert "principal" not in log.lines[0]


def test_an_audit_line_says_who_did_what_to_what(log: Log) -> None:
    logging.getLogger("ras_triage").setLevel("ERROR")
    logs.audit("host.put", "node-17", "ops", version=3)

    (line,) = log.lines
    assert line["logger"] == "ras_triage.audit"
    assert (line["action"], line["target"], line["principal"], line["version"]) == ("host.put", "node-17", "ops", 3)


def test_lines_of_the_server_have_the_same_form(log: Log) -> None:
    logging.getLogger("uvicorn.error").info("running on %s", "http://127.0.0.1:1", extra={"color_message": "\x1b[1m"})

    (line,) = log.lines
    assert (line["logger"], line["event"]) == ("uvicorn.error", "running on http://127.0.0.1:1")
    assert "color_message" not in line


def test_other_libraries_are_heard_only_when_they_warn(log: Log) -> None:
    logging.getLogger("httpx").info("GET https://issuer/keys?token=secret")
    logging.getLogger("httpx").warning("slow")

    assert [line["event"] for line in log.lines] == ["slow"]


def test_the_level_is_the_operators() -> None:
    log = Log("json", "error")
    logs.log(logging.WARNING, "not heard")
    logs.log(logging.ERROR, "heard")

    assert [line["event"] for line in log.lines] == ["heard"]


def fail(error: Exception, cause: Exception | None = None) -> None:
    raise error from cause


def test_an_error_is_told_by_its_type_and_place_and_never_by_its_text(log: Log) -> None:
    try:
        fail(ValueError("AQAAAA== of the event"), KeyError("secret"))
    except ValueError as error:
        logs.log(logging.ERROR, "defect", **logs.explain(error))
        logging.getLogger("uvicorn.error").error("Exception in ASGI application\n", exc_info=error)

    assert [line["error"] for line in log.lines] == ["ValueError from KeyError"] * 2
    assert all("test_logs.py" in line["frames"][-1] and line["frames"][-1].endswith(" fail") for line in log.lines)
    assert "AQAAAA==" not in log.text
    assert "secret" not in log.text


@pytest.mark.parametrize("error", [StoreUnavailable("disk is full"), OSError(28, "disk is full"), sqlite3.OperationalError("disk is full")])
def test_what_the_machine_says_is_said(log: Log, error: Exception) -> None:
    logs.log(logging.ERROR, "store failed", **logs.explain(error))

    assert "disk is full" in log.lines[0]["reason"]


@pytest.mark.parametrize("style", ["json", "text"])
def test_what_is_no_text_is_spelt_out_and_its_line_is_written(style: logs.Format) -> None:
    log = Log(style)
    logs.log(logging.INFO, "request", principal="token \ud800", frames="\udcff")  # a file's name may have the second

    assert len(log.text.splitlines()) == 1
    assert "ud800" in log.text
    assert "udcff" in log.text


@pytest.mark.parametrize("style", ["json", "text"])
def test_a_key_where_it_does_not_belong_is_hidden_but_for_its_id(style: logs.Format) -> None:
    log = Log(style)
    key, shown = create("somebody", ["read"], 0)

    def request() -> None:
        logs.begin(request_id=shown)
        logs.log(logging.INFO, "request", route="other")
        logs.audit("host.put", f"host of {shown}", "key 1")
        logging.getLogger("uvicorn.error").error("%s is not valid", shown)

    in_a_context_of_its_own(request)
    assert len(log.text.splitlines()) == 3
    assert log.text.count(f"rt_{key.id}_********") == 5
    assert shown.removeprefix(f"rt_{key.id}_") not in log.text


def test_errors_that_follow_from_each_other_in_a_circle_come_to_an_end() -> None:
    one, two = ValueError(), KeyError()
    one.__cause__, two.__cause__ = two, one

    assert logs.explain(one)["error"].startswith("ValueError from KeyError from ")


def test_what_asyncio_complains_about_is_cut_where_it_shows_objects(log: Log) -> None:
    logging.getLogger("asyncio").error("Task exception was never retrieved\nfuture: <Task exception=ValueError('secret')>")

    assert log.lines[0]["event"] == "Task exception was never retrieved"


def test_text_reads_as_words(text_log: Log) -> None:
    logs.log(logging.INFO, "request", status=201, route="/v1/decisions", principal=None, client="two words")

    assert text_log.text.endswith(' info    ras_triage: request status=201 route=/v1/decisions principal=null client="two words"\n')


ATTACKS = [
    "a\nlevel=error",
    "\x1b[31m",
    "a\u2028b",
    "a\x85b",
    'quoted "',
    "",
    "ümlaut\x00",
    "\x9b31mx",
    "\u202ex",
    "a\u200bb",
    "a\ufe0fb",
    "\udc9bx",
]


@pytest.mark.parametrize("style", ["json", "text"])
@pytest.mark.parametrize("text", ATTACKS)
def test_nobody_forges_a_line(style: logs.Format, text: str) -> None:
    log = Log(style)
    logs.log(logging.INFO, "request", source=text)
    logging.getLogger("uvicorn.error").info("client says %s", text)

    lines = log.text.split("\n")
    assert len(lines) == 3
    assert all(map(is_visible, lines))


@pytest.mark.parametrize("text", [text for text in ATTACKS if "\udc9b" not in text])
def test_a_line_of_json_holds_what_was_said(log: Log, text: str) -> None:
    logs.log(logging.INFO, "request", source=text)

    assert log.lines[0]["source"] == text
