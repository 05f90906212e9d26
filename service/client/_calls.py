"""What can be asked: each call of the HTTP interface as a flow that gives its answer as a value."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import cache
from typing import Any, TypedDict, TypeVar
from urllib.parse import quote
from uuid import uuid4

from httpx_sse import ServerSentEvent
from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

from ras_triage.models.host import Host
from ras_triage.models.times import utc_text
from ras_triage.service.api.decision_response import DecisionResponse
from ras_triage.service.api.policy_pages import Difference, PolicyList, PolicyPage
from ras_triage.service.api.problems import Problem
from ras_triage.service.api.syndromes import Explanation, Explanations, InjectionAnswer, SyndromeAnswer
from ras_triage.service.client._protocol import (
    BATCH_SILENCE_S,
    SILENCE_S,
    ClientRequest,
    CompleteResponse,
    Emit,
    ProtocolFlow,
    batch,
    can_be_event_id,
    watch,
    whole,
)
from ras_triage.service.client.chunks import AnyEvent, Chunk, event_json
from ras_triage.service.client.errors import ProblemAnswer, UnexpectedAnswer
from ras_triage.service.client.limits import AnswerLimits
from ras_triage.service.client.results import (
    Decoded,
    Health,
    KeptHost,
    Page,
    PoisonedPages,
    Purged,
    Stats,
    StoreState,
    Summary,
    Watched,
    WatchedDecision,
)
from ras_triage.service.client.retry import NEVER, Retry

T = TypeVar("T")

JSON = "application/json"
NDJSON = "application/x-ndjson"
EVENTS = "text/event-stream"

_MAX_LISTED = 10_000


class Filters(TypedDict, total=False):
    """Which decisions are asked for; what is absent or None leaves any."""

    source: str | None
    action: str | None
    policy: str | None
    notification: str | None
    severity: str | None
    section: str | None
    physical_address: int | str | None
    """Bytes; text is hexadecimal with 0x."""
    since: datetime | str | None
    """Decided then or later; RFC 3339 where it is text."""
    until: datetime | str | None
    """Decided before."""


_adapter: Callable[[Any], TypeAdapter[Any]] = cache(TypeAdapter)


def _read(kind: type[T], body: bytes) -> T:
    """A body as a value. Raises UnexpectedAnswer."""
    try:
        value: T = _adapter(kind).validate_json(body)
    except ValidationError as error:
        raise UnexpectedAnswer(f"not the answer that was asked for: {_first(error)}") from error
    return value


def _first(error: ValidationError) -> str:
    """Return the first thing that is wrong; only a count where listing them all would take much memory."""
    if error.error_count() > _MAX_LISTED:
        return f"{error.error_count()} values are not valid"
    first = error.errors(include_url=False, include_input=False)[0]
    where = "/".join(map(str, first["loc"]))
    return f"`{where}`: {first['msg'].lower()}"


def read_answer(line: bytes) -> DecisionResponse | Problem:
    """One line of a batch's answer. Raises UnexpectedAnswer."""
    try:
        answer: DecisionResponse = _adapter(DecisionResponse).validate_json(line)
    except ValidationError:
        return _read(Problem, line)
    return answer


def new_key() -> str:
    """An `Idempotency-Key` that nobody else has."""
    return uuid4().hex


def _parameters(filters: Mapping[str, Any]) -> dict[str, str]:
    return {name: _parameter(value) for name, value in filters.items() if value is not None}


def _parameter(value: Any) -> str:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError(f"`{value}` has no time zone")
        return utc_text(value)
    return hex(value) if isinstance(value, int) else str(value)


def _named(name: str) -> str:
    """A name as one segment of a path; `.` and `..` would be taken for steps within it."""
    return name.replace(".", "%2E") if name in (".", "..") else quote(name, safe="")


def _version(version: int | None) -> dict[str, str]:
    return {} if version is None else {"if-match": f'"{version}"'}


class Calls:
    """The calls, asked again as `retry` says, with answers up to `limits`."""

    def __init__(self, retry: Retry, limits: AnswerLimits) -> None:
        self.retry = retry
        self.limits = limits

    def _whole(self, kind: type[T], request: ClientRequest) -> ProtocolFlow[T]:
        answer: CompleteResponse = yield from whole(request, self.retry, self.limits)
        yield Emit(_read(kind, answer.body))

    def _get(self, kind: type[T], path: str, params: Mapping[str, str] | None = None) -> ProtocolFlow[T]:
        return self._whole(kind, ClientRequest("GET", path, params or {}))

    def _post(self, kind: Any, path: str, body: bytes, media_type: str = JSON) -> ProtocolFlow[Any]:
        return self._whole(kind, ClientRequest("POST", path, headers={"content-type": media_type}, content=body))

    def _bytes(self, request: ClientRequest) -> ProtocolFlow[bytes]:
        answer = yield from whole(request, self.retry, self.limits)
        yield Emit(answer.body)

    def decide(self, event: AnyEvent, dry_run: bool, key: str | None) -> ProtocolFlow[DecisionResponse]:
        headers = {"content-type": JSON, **({} if dry_run else {"idempotency-key": key or new_key()})}
        params = {"dry_run": "true"} if dry_run else {}
        return self._whole(DecisionResponse, ClientRequest("POST", "/v1/decisions", params, headers, event_json(event)))

    def decide_chunk(self, chunk: Chunk, key: str, answered: int) -> ProtocolFlow[bytes]:
        """`answered`: how many of all events, from the first chunk's first on, have their answer already."""
        headers = {"content-type": NDJSON, "accept": NDJSON, "idempotency-key": f"{key}-{chunk.first + 1}"}
        request = ClientRequest("POST", "/v1/decisions/batch", {}, headers, answer_type=NDJSON, silence_s=BATCH_SILENCE_S)
        return batch(request, chunk, max(answered - chunk.first, 0), self.retry, self.limits)

    def get(self, identity: str) -> ProtocolFlow[DecisionResponse]:
        return self._get(DecisionResponse, f"/v1/decisions/{_named(identity)}")

    def get_json(self, identity: str) -> ProtocolFlow[bytes]:
        return self._bytes(ClientRequest("GET", f"/v1/decisions/{_named(identity)}"))

    def event(self, identity: str) -> ProtocolFlow[bytes]:
        return self._bytes(ClientRequest("GET", f"/v1/decisions/{_named(identity)}/event"))

    def decisions(self, filters: Filters, page_size: int) -> ProtocolFlow[Summary]:
        params = {**_parameters(filters), "limit": str(page_size)}
        while True:
            answer = yield from whole(ClientRequest("GET", "/v1/decisions", params), self.retry, self.limits)
            page = _read(Page, answer.body)
            for summary in page.decisions:
                yield Emit(summary)
            if page.next is None:
                return
            if not page.decisions or page.next == params.get("cursor"):
                raise UnexpectedAnswer("the list of decisions does not end: a page leads to itself, or is empty and not the last")
            params = {**params, "cursor": page.next}

    def stats(self, group_by: Iterable[str], bucket: str | int, filters: Filters) -> ProtocolFlow[Stats]:
        params = {"bucket": str(bucket), "group_by": ",".join(group_by)}
        return self._get(Stats, "/v1/decisions/stats", {**params, **_parameters(filters)})

    def watch(self, filters: Filters, last_event_id: str | None) -> ProtocolFlow[Watched]:
        if last_event_id is not None and not can_be_event_id(last_event_id):
            raise ValueError("`last_event_id`: expected printable ASCII")
        headers = {"accept": EVENTS}
        request = ClientRequest("GET", "/v1/decisions/stream", _parameters(filters), headers, answer_type=EVENTS, silence_s=SILENCE_S)
        return watch(request, last_event_id, _read_watched, self.retry, self.limits)

    def put_host(self, source: str, host: Host | Mapping[str, Any], version: int | None) -> ProtocolFlow[KeptHost]:
        headers = {"content-type": JSON, **_version(version)}
        facts = host.model_dump_json(exclude_unset=True).encode() if isinstance(host, Host) else to_json(host)
        return self._whole(KeptHost, ClientRequest("PUT", f"/v1/hosts/{_named(source)}", {}, headers, facts, repeatable=version is None))

    def host(self, source: str, version: int | None) -> ProtocolFlow[KeptHost]:
        return self._get(KeptHost, f"/v1/hosts/{_named(source)}", {} if version is None else {"version": str(version)})

    def delete_host(self, source: str, version: int | None) -> ProtocolFlow[None]:
        yield from whole(
            ClientRequest("DELETE", f"/v1/hosts/{_named(source)}", headers=_version(version), repeatable=False), self.retry, self.limits
        )
        yield Emit(None)

    def poisoned_pages(self, source: str) -> ProtocolFlow[PoisonedPages]:
        return self._get(PoisonedPages, f"/v1/poisoned-pages/{_named(source)}")

    def forget_poisoned_pages(self, source: str) -> ProtocolFlow[None]:
        yield from whole(ClientRequest("DELETE", f"/v1/poisoned-pages/{_named(source)}"), self.retry, self.limits)
        yield Emit(None)

    def store(self) -> ProtocolFlow[StoreState]:
        return self._get(StoreState, "/v1/store")

    def decode(self, data: bytes) -> ProtocolFlow[Decoded]:
        return self._post(Decoded, "/v1/decode", data, "application/octet-stream")

    def syndromes(self, question: Mapping[str, Any]) -> ProtocolFlow[SyndromeAnswer]:
        return self._post(Explanation | Explanations | InjectionAnswer, "/v1/syndromes", to_json(question))

    def policies(self) -> ProtocolFlow[PolicyList]:
        return self._get(PolicyList, "/v1/policies")

    def policy(self, name: str) -> ProtocolFlow[PolicyPage]:
        return self._get(PolicyPage, f"/v1/policies/{_named(name)}")

    def policy_diff(self, a: str, b: str) -> ProtocolFlow[Difference]:
        return self._get(Difference, f"/v1/policies/{_named(a)}/diff/{_named(b)}")

    def health(self) -> ProtocolFlow[Health]:
        """Asked once: whoever asks wants to know how it is now."""
        try:
            yield from whole(ClientRequest("GET", "/readyz"), NEVER, self.limits)
        except ProblemAnswer as answer:
            yield Emit(Health(ready=False, problem=answer.problem))
        else:
            yield Emit(Health(ready=True, problem=None))


def _read_watched(event: ServerSentEvent) -> Watched | None:
    """An event of the stream as a value; None for a heartbeat, and for kinds that are not known."""
    if event.event == "decision":
        return WatchedDecision(event.id, _read(Summary, event.data.encode()))
    if event.event == "purged":
        return Purged(event.id, _read(dict[str, int], event.data.encode()).get("decisions", 0))
    return None
