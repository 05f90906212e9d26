"""Calls of the HTTP interface, as generators without I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, timedelta
from functools import cache
from math import ceil
from typing import Any, TypedDict, TypeVar
from urllib.parse import quote
from uuid import uuid4

from httpx_sse import ServerSentEvent
from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

from ras_triage.models.host import Host
from ras_triage.models.times import utc_text
from ras_triage.service.api.decision_response import AlternativesResponse, BatchSummary, BatchView, DecisionResponse
from ras_triage.service.api.policy_pages import Difference, PolicyList, PolicyPage
from ras_triage.service.api.problems import Problem
from ras_triage.service.api.replays.replays import Replay, ReplayEntry, ReplayList
from ras_triage.service.api.syndromes import Explanation, Explanations, InjectionResult, SyndromeResponse
from ras_triage.service.client._protocol import (
    BATCH_TIMEOUT_S,
    STREAM_TIMEOUT_S,
    ClientRequest,
    CompleteResponse,
    Emit,
    ProtocolFlow,
    batch_results,
    can_be_event_id,
    complete_response,
    watch_stream,
)
from ras_triage.service.client.chunks import AnyEvent, Chunk, event_json
from ras_triage.service.client.errors import ProblemResponse, UnexpectedResponse
from ras_triage.service.client.limits import ResponseLimits
from ras_triage.service.client.results import (
    DecodeResult,
    Health,
    HostEntry,
    HostList,
    Page,
    PoisonedEntry,
    PoisonedList,
    PoisonedPages,
    PurgedDecisions,
    Stats,
    StoredHost,
    StoreState,
    StreamedDecision,
    StreamItem,
    Summary,
)
from ras_triage.service.client.retry import NEVER, Retry

T = TypeVar("T")
P = TypeVar("P", Page, HostList, PoisonedList)

JSON = "application/json"
NDJSON = "application/x-ndjson"
EVENTS = "text/event-stream"

_MAX_ERRORS = 10_000


Texts = str | Iterable[str]
"""One value or several, of which a decision has one. A text may have commas between values."""

Time = datetime | date | timedelta | str
"""A time, the start of a day (UTC), or an age; a string is RFC 3339, a date, or an age such as `1h`."""


class Filters(TypedDict, total=False):
    """Filters for decisions; what is absent or None does not filter."""

    source: Texts | None
    """A value that ends with `*` is a prefix."""
    action: Texts | None
    policy: Texts | None
    notification: Texts | None
    severity: Texts | None
    section: Texts | None
    physical_address: int | str | Iterable[int | str] | None
    """In bytes; a string is hexadecimal with 0x."""
    since: Time | None
    """Decided at this time or later."""
    until: Time | None
    """Decided before this time."""


class HostFilters(TypedDict, total=False):
    """Filters for hosts; what is absent or None does not filter."""

    source: Texts | None
    """A value that ends with `*` is a prefix."""
    since: Time | None
    """Changed at this time or later."""
    until: Time | None
    """Changed before this time."""


class PoisonFilters(TypedDict, total=False):
    """Filters for poisoned pages; what is absent or None does not filter."""

    source: Texts | None
    """A value that ends with `*` is a prefix."""
    physical_address: int | str | Iterable[int | str] | None
    """An address in the page, in bytes; a string is hexadecimal with 0x."""


_adapter: Callable[[Any], TypeAdapter[Any]] = cache(TypeAdapter)


def _read(kind: type[T], body: bytes) -> T:
    """Return a response body as a value. Raises UnexpectedResponse."""
    try:
        value: T = _adapter(kind).validate_json(body)
    except ValidationError as error:
        raise UnexpectedResponse(f"unexpected response body: {_first_error(error)}") from error
    return value


def _first_error(error: ValidationError) -> str:
    """Return the first validation error; of very many only the count, because the list would take much memory."""
    if error.error_count() > _MAX_ERRORS:
        return f"{error.error_count()} values are not valid"
    first = error.errors(include_url=False, include_input=False)[0]
    where = "/".join(map(str, first["loc"]))
    return f"`{where}`: {first['msg'].lower()}"


def read_result(line: bytes) -> DecisionResponse | Problem:
    """Return the result on one line of a batch response. Raises UnexpectedResponse."""
    return _read_line(DecisionResponse, line)


def new_key() -> str:
    """Return a unique `Idempotency-Key`."""
    return uuid4().hex


def read_summary(line: bytes) -> BatchSummary | Problem:
    """Return the result on one line of a batch response with `view=summary`. Raises UnexpectedResponse."""
    return _read_line(BatchSummary, line)


def _read_line(kind: type[T], line: bytes) -> T | Problem:
    try:
        result: T = _adapter(kind).validate_json(line)
    except ValidationError:
        return _read(Problem, line)
    return result


def _parameters(filters: Mapping[str, Any]) -> dict[str, str | list[str]]:
    return {name: _parameter(value) for name, value in filters.items() if value is not None}


def _parameter(value: Any) -> str | list[str]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        return _parameter_text(value)
    return list(map(_parameter_text, value))


def _parameter_text(value: Any) -> str:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError(f"`{value}` has no time zone; expected an aware datetime")
        return utc_text(value)
    if isinstance(value, timedelta):
        if value < timedelta(0):
            raise ValueError(f"`{value}` is negative; expected an age")
        return f"{ceil(value.total_seconds())}s"
    return hex(value) if isinstance(value, int) else str(value)


def _path_segment(name: str) -> str:
    """Return a name as one path segment; `.` and `..` are escaped because they would be resolved."""
    return name.replace(".", "%2E") if name in (".", "..") else quote(name, safe="")


def _if_match(version: int | None) -> dict[str, str]:
    return {} if version is None else {"if-match": f'"{version}"'}


class Calls:
    """The calls, with retries according to `retry` and responses up to `limits`."""

    def __init__(self, retry: Retry, limits: ResponseLimits) -> None:
        self.retry = retry
        self.limits = limits

    def _value(self, kind: type[T], request: ClientRequest) -> ProtocolFlow[T]:
        response: CompleteResponse = yield from complete_response(request, self.retry, self.limits)
        yield Emit(_read(kind, response.body))

    def _get(self, kind: type[T], path: str, params: Mapping[str, str | list[str]] | None = None) -> ProtocolFlow[T]:
        return self._value(kind, ClientRequest("GET", path, params or {}))

    def _post(self, kind: Any, path: str, body: bytes, media_type: str = JSON) -> ProtocolFlow[Any]:
        return self._value(kind, ClientRequest("POST", path, headers={"content-type": media_type}, content=body))

    def _bytes(self, request: ClientRequest) -> ProtocolFlow[bytes]:
        response = yield from complete_response(request, self.retry, self.limits)
        yield Emit(response.body)

    def decide(self, event: AnyEvent, dry_run: bool, key: str | None) -> ProtocolFlow[DecisionResponse]:
        headers = {"content-type": JSON, **({} if dry_run else {"idempotency-key": key or new_key()})}
        params = {"dry_run": "true"} if dry_run else {}
        return self._value(DecisionResponse, ClientRequest("POST", "/v1/decisions", params, headers, event_json(event)))

    def decide_chunk(self, chunk: Chunk, key: str, answered: int, dry_run: bool, view: BatchView) -> ProtocolFlow[bytes]:
        """`answered`: how many of all events, from the first event of the first chunk, have their result already."""
        headers = {"content-type": NDJSON, "accept": NDJSON, **({} if dry_run else {"idempotency-key": f"{key}-{chunk.first + 1}"})}
        params: dict[str, str | list[str]] = {"dry_run": "true"} if dry_run else {}
        if view != "full":
            params["view"] = view
        request = ClientRequest("POST", "/v1/decisions/batch", params, headers, response_type=NDJSON, read_timeout_s=BATCH_TIMEOUT_S)
        return batch_results(request, chunk, max(answered - chunk.first, 0), self.retry, self.limits)

    def get(self, identity: str) -> ProtocolFlow[DecisionResponse]:
        return self._get(DecisionResponse, f"/v1/decisions/{_path_segment(identity)}")

    def alternatives(self, identity: str) -> ProtocolFlow[AlternativesResponse]:
        return self._get(AlternativesResponse, f"/v1/decisions/{_path_segment(identity)}/alternatives")

    def get_json(self, identity: str) -> ProtocolFlow[bytes]:
        return self._bytes(ClientRequest("GET", f"/v1/decisions/{_path_segment(identity)}"))

    def event(self, identity: str) -> ProtocolFlow[bytes]:
        return self._bytes(ClientRequest("GET", f"/v1/decisions/{_path_segment(identity)}/event"))

    def decisions(self, filters: Filters, page_size: int) -> ProtocolFlow[Summary]:
        return self._pages(Page, lambda page: page.decisions, "/v1/decisions", filters, page_size)

    def hosts(self, filters: HostFilters, page_size: int) -> ProtocolFlow[HostEntry]:
        return self._pages(HostList, lambda page: page.hosts, "/v1/hosts", filters, page_size)

    def all_poisoned_pages(self, filters: PoisonFilters, page_size: int) -> ProtocolFlow[PoisonedEntry]:
        return self._pages(PoisonedList, lambda page: page.pages, "/v1/poisoned-pages", filters, page_size)

    def _pages(
        self, kind: type[P], rows_of: Callable[[P], tuple[T, ...]], path: str, filters: Mapping[str, Any], page_size: int
    ) -> ProtocolFlow[T]:
        params = {**_parameters(filters), "limit": str(page_size)}
        while True:
            response = yield from complete_response(ClientRequest("GET", path, params), self.retry, self.limits)
            page = _read(kind, response.body)
            rows = rows_of(page)
            for row in rows:
                yield Emit(row)
            if page.next is None:
                return
            if not rows or page.next == params.get("cursor"):
                raise UnexpectedResponse(f"endless list at `{path}`: a page links to itself, or is empty and not the last")
            params = {**params, "cursor": page.next}

    def stats(self, group_by: str | Iterable[str], bucket: str | int, fill: bool, filters: Filters) -> ProtocolFlow[Stats]:
        params = {"bucket": str(bucket), "group_by": group_by if isinstance(group_by, str) else ",".join(group_by)}
        return self._get(Stats, "/v1/decisions/stats", {**params, **({"fill": "true"} if fill else {}), **_parameters(filters)})

    def watch(self, filters: Filters, last_event_id: str | None) -> ProtocolFlow[StreamItem]:
        if last_event_id is not None and not can_be_event_id(last_event_id):
            raise ValueError("`last_event_id`: expected printable ASCII")
        headers = {"accept": EVENTS}
        request = ClientRequest(
            "GET", "/v1/decisions/stream", _parameters(filters), headers, response_type=EVENTS, read_timeout_s=STREAM_TIMEOUT_S
        )
        return watch_stream(request, last_event_id, _read_stream_item, self.retry, self.limits)

    def put_host(self, source: str, host: Host | Mapping[str, Any], version: int | None) -> ProtocolFlow[StoredHost]:
        headers = {"content-type": JSON, **_if_match(version)}
        facts = host.model_dump_json(exclude_unset=True).encode() if isinstance(host, Host) else to_json(host)
        return self._value(
            StoredHost, ClientRequest("PUT", f"/v1/hosts/{_path_segment(source)}", {}, headers, facts, idempotent=version is None)
        )

    def host(self, source: str, version: int | None) -> ProtocolFlow[StoredHost]:
        return self._get(StoredHost, f"/v1/hosts/{_path_segment(source)}", {} if version is None else {"version": str(version)})

    def delete_host(self, source: str, version: int | None) -> ProtocolFlow[None]:
        yield from complete_response(
            ClientRequest("DELETE", f"/v1/hosts/{_path_segment(source)}", headers=_if_match(version), idempotent=False),
            self.retry,
            self.limits,
        )
        yield Emit(None)

    def poisoned_pages(self, source: str) -> ProtocolFlow[PoisonedPages]:
        return self._get(PoisonedPages, f"/v1/poisoned-pages/{_path_segment(source)}")

    def forget_poisoned_pages(self, source: str) -> ProtocolFlow[None]:
        yield from complete_response(ClientRequest("DELETE", f"/v1/poisoned-pages/{_path_segment(source)}"), self.retry, self.limits)
        yield Emit(None)

    def store(self) -> ProtocolFlow[StoreState]:
        return self._get(StoreState, "/v1/store")

    def decode(self, data: bytes) -> ProtocolFlow[DecodeResult]:
        return self._post(DecodeResult, "/v1/decode", data, "application/octet-stream")

    def syndromes(self, fields: Mapping[str, Any]) -> ProtocolFlow[SyndromeResponse]:
        return self._post(Explanation | Explanations | InjectionResult, "/v1/syndromes", to_json(fields))

    def create_replay(self, after: str, before: str | None, filters: Filters) -> ProtocolFlow[Replay]:
        document = to_json({"after": after, "before": before, "filter": _parameters(filters)})
        return self._value(Replay, ClientRequest("POST", "/v1/replays", {}, {"content-type": JSON}, document, idempotent=False))

    def replay(self, identity: str) -> ProtocolFlow[Replay]:
        return self._get(Replay, f"/v1/replays/{_path_segment(identity)}")

    def replays(self) -> ProtocolFlow[tuple[ReplayEntry, ...]]:
        response = yield from complete_response(ClientRequest("GET", "/v1/replays"), self.retry, self.limits)
        yield Emit(_read(ReplayList, response.body).replays)

    def remove_replay(self, identity: str) -> ProtocolFlow[None]:
        request = ClientRequest("DELETE", f"/v1/replays/{_path_segment(identity)}", idempotent=False)
        yield from complete_response(request, self.retry, self.limits)
        yield Emit(None)

    def policies(self) -> ProtocolFlow[PolicyList]:
        return self._get(PolicyList, "/v1/policies")

    def policy(self, name: str) -> ProtocolFlow[PolicyPage]:
        return self._get(PolicyPage, f"/v1/policies/{_path_segment(name)}")

    def put_policy(self, name: str, definition: Mapping[str, Any]) -> ProtocolFlow[PolicyPage]:
        path = f"/v1/policies/{_path_segment(name)}"
        return self._value(PolicyPage, ClientRequest("PUT", path, {}, {"content-type": JSON}, to_json(definition), idempotent=True))

    def policy_diff(self, a: str, b: str) -> ProtocolFlow[Difference]:
        return self._get(Difference, f"/v1/policies/{_path_segment(a)}/diff/{_path_segment(b)}")

    def health(self) -> ProtocolFlow[Health]:
        """Return the state now: without retries."""
        try:
            yield from complete_response(ClientRequest("GET", "/readyz"), NEVER, self.limits)
        except ProblemResponse as response:
            yield Emit(Health(ready=False, problem=response.problem))
        else:
            yield Emit(Health(ready=True, problem=None))


def _read_stream_item(event: ServerSentEvent) -> StreamItem | None:
    """Return an event of the stream as a value; None for a heartbeat and for unknown events."""
    if event.event == "decision":
        return StreamedDecision(event.id, _read(Summary, event.data.encode()))
    if event.event == "purged":
        return PurgedDecisions(event.id, _read(dict[str, int], event.data.encode()).get("decisions", 0))
    return None
