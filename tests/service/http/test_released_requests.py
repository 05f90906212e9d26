"""Requests of clients of released versions: this version answers them as the release did, with at most more members.

`released_0_1.jsonl` was recorded from the service at commit dcbfc0e. It is edited only for answers that the changelog declares wrong.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from ras_triage.service.config.settings import Settings
from ras_triage.service.http.server.run import running
from tests.service.support.api_exchanges import Exchange, bind_ids, body_of, difference

RECORDED: Final = Path(__file__).with_name("released_0_1.jsonl")

PROSE: Final = {
    "as_of", "assumed", "because", "detail", "digest", "given", "lost", "meaning", "message", "outcome", "reasons", "said", "summary",
    "title", "what", "why",
}  # fmt: skip
"""Members that are for persons, or change with a rule: no client compares them."""

HEADERS: Final = ("etag", "content-type")
"""Headers that a client of 0.1 uses."""


def requests() -> list[dict[str, Any]]:
    return [json.loads(line) for line in RECORDED.read_text(encoding="utf-8").splitlines()]


def exchange_of(one: dict[str, Any]) -> Exchange:
    query, headers = one.get("query", {}), one.get("headers", {})
    request = {name: one[name] for name in ("content_type", "body") if name in one} | {"parameters": query | headers}
    response = {"content_type": "text/event-stream", "body": "\n\n" * one["stream"]} if "stream" in one else {}
    return Exchange(one["method"], one["path"], set(query), set(headers), {"request": request, "response": response})


def without_prose(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_prose(one) for name, one in value.items() if name not in PROSE}
    return [without_prose(one) for one in value] if isinstance(value, list) else value


def recorded(answer: httpx.Response) -> dict[str, Any]:
    """Return what is kept of an answer."""
    body = body_of(answer)
    lines = isinstance(body, str) and body.startswith("{")
    kept = "".join(json.dumps(without_prose(json.loads(line))) + "\n" for line in body.splitlines()) if lines else without_prose(body)
    headers = {name: answer.headers[name] for name in HEADERS if name in answer.headers}
    return {"status": answer.status_code, "headers": headers, "body": kept}


def answers() -> Iterator[tuple[dict[str, Any], httpx.Response]]:
    """Yield the requests, in their order, and what a new service answers."""
    ids: dict[str, str] = {}
    with running(Settings(store="memory:")) as url:
        for one in requests():
            answer = exchange_of(one).send(url, ids)
            bind_ids(one.get("response", {}).get("body"), recorded(answer)["body"], ids)
            yield one, answer


@pytest.fixture(scope="module")
def answered() -> dict[str, httpx.Response]:
    return {one["name"]: answer for one, answer in answers()}


@pytest.mark.parametrize("one", requests(), ids=lambda one: one["name"])
def test_a_request_of_a_released_client_is_answered_as_then(answered: dict[str, httpx.Response], one: dict[str, Any]) -> None:
    expected, actual = one["response"], recorded(answered[one["name"]])

    assert actual["status"] == expected["status"], answered[one["name"]].text
    assert expected["headers"].items() <= actual["headers"].items()
    assert difference(expected["body"], actual["body"], shortened=one.get("shortened", False), extended=True) is None


def record() -> None:
    """Write the answers of this version to the requests that have none, before a release."""
    done = [one | {"response": one.get("response", recorded(answer))} for one, answer in answers()]
    RECORDED.write_text("".join(json.dumps(one) + "\n" for one in done), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(record())
