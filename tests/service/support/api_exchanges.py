"""Requests and answers in files: sent to a service, and compared or written again."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

import httpx

JSON: Final = "application/json"

_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
_VOLATILE: Final = (
    (_UUID, "<id>"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"), "<time>"),
    (re.compile(r"sha256:[0-9a-f]{64}"), "<digest>"),
)
"""What differs between two runs of a service, or between versions of the rules: ids, times, digests of policies."""

_VARYING: Final = {"bytes", "wal_bytes", "decisions", "next", "retry_after_s", "ticket", "version"}
"""Members whose numbers and texts depend on the machine, or on what else was sent."""


class Exchange:
    """A request and its answer, as in the example files: `parameters` by name, `content_type`, `body`; `status`, `content_type`, `body`."""

    def __init__(self, method: str, path: str, query: set[str], headers: set[str], example: dict[str, Any]) -> None:
        self.method, self.path, self.query, self.headers = method, path, query, headers
        self.example = example

    def send(self, url: str, ids: dict[str, str]) -> httpx.Response:
        """Return the answer to the request; `ids` are those of this run for those in the files."""
        request = json.loads(_with_ids(json.dumps(self.example["request"]), ids))
        parameters = request.get("parameters", {})
        kind = request.get("content_type", JSON)
        body = request.get("body")
        content = None if body is None else body.encode() if isinstance(body, str) else json.dumps(body).encode()
        headers = {name: str(parameters[name]) for name in self.headers & set(parameters)}
        headers |= {"content-type": kind} if content is not None else {}
        accepted = self.example["response"].get("content_type")
        headers |= {"accept": accepted} if accepted else {}
        query = {name: parameters[name] for name in parameters if name in self.query}
        address = url + _with_ids(self.path.format(**parameters), ids)
        if self.example["response"].get("content_type") == "text/event-stream":
            return _first_events(address, query, headers, self.example["response"]["body"].count("\n\n"))
        return httpx.request(self.method, address, params=query, headers=headers, content=content, timeout=30)


def _with_ids(text: str, ids: dict[str, str]) -> str:
    return _UUID.sub(lambda found: ids.get(found[0], found[0]), text)


def _first_events(url: str, query: dict[str, Any], headers: dict[str, str], count: int) -> httpx.Response:
    """Return the response of a stream with its first events, comments left out."""
    with httpx.stream("GET", url, params=query, headers=headers, timeout=30) as answer:
        text = ""
        for line in answer.iter_lines():
            text += "" if line.startswith(":") else f"{line}\n"
            if text.lstrip("\n").count("\n\n") >= count:
                break
    headers = {name: value for name, value in answer.headers.items() if name != "content-encoding"}
    return httpx.Response(answer.status_code, headers=headers, text=text.lstrip("\n"))


def body_of(answer: httpx.Response) -> Any:
    """Return the body as the files have it: JSON as values, anything else as text, nothing as None."""
    if not answer.content:
        return None
    return answer.json() if re.match(r"application/([\w.-]+\+)?json\b", answer.headers["content-type"]) else answer.text


def bind_ids(expected: Any, actual: Any, ids: dict[str, str]) -> None:
    """Note which id of the files is which of this run, from an answer."""
    ids.update(zip(_UUID.findall(json.dumps(expected)), _UUID.findall(json.dumps(actual)), strict=False))


def difference(expected: Any, actual: Any, *, shortened: bool = False, extended: bool = False, where: str = "") -> str | None:
    """Return the first place at which an answer is not as expected, apart from what differs between two runs; None: there is none.

    `shortened`: lists and lines of the expected answer are some of the actual ones. `extended`: the actual answer may have more members.
    """
    options = {"shortened": shortened, "extended": extended}
    if isinstance(expected, dict) and isinstance(actual, dict):
        if expected.keys() - actual.keys() or (not extended and actual.keys() - expected.keys()):
            return f"{where}: members {sorted(expected.keys() ^ actual.keys())}"
        compared = [name for name, value in expected.items() if not (name in _VARYING and isinstance(value, int | str))]
        return next(filter(None, (difference(expected[name], actual[name], where=f"{where}/{name}", **options) for name in compared)), None)
    if isinstance(expected, list) and isinstance(actual, list) and shortened:
        rest = iter(actual)
        missing = (item for item in expected if not any(difference(item, one, **options) is None for one in rest))
        return next((f"{where}: no {json.dumps(item)[:300]}" for item in missing), None)
    if isinstance(expected, list) and isinstance(actual, list) and len(expected) == len(actual):
        pairs = enumerate(zip(expected, actual, strict=True))
        return next(filter(None, (difference(one, other, where=f"{where}/{at}", **options) for at, (one, other) in pairs)), None)
    if isinstance(expected, str) and isinstance(actual, str) and "\n" in expected:
        return difference(list(_parsed_lines(expected)), list(_parsed_lines(actual)), where=where, **options)
    same = stable(expected) == stable(actual)
    return None if same else f"{where}: expected {json.dumps(expected)[:300]}, got {json.dumps(actual)[:300]}"


def _parsed_lines(text: str) -> Iterator[Any]:
    """Yield the lines of NDJSON or of events, with the JSON in them as values."""
    for line in text.splitlines():
        data = line.removeprefix("data: ")
        yield json.loads(data) if data.startswith("{") else re.sub(r" [\d.e+-]+$", " <number>", line)


def stable(value: Any) -> Any:
    """Return a value without what differs between two runs."""
    if not isinstance(value, str):
        return value
    for pattern, replacement in _VOLATILE:
        value = pattern.sub(replacement, value)
    return value
