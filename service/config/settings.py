"""What an operator can set, and what holds where nothing was set.

Nothing is read here: `ras_triage.service.config.sources` makes settings from flags, environment and file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Final, Literal

from ras_triage.policies.catalog.choice import find_policy, load_policies
from ras_triage.policies.catalog.policies import UNIFORM, InvalidPolicy, Policy, UnknownPolicy, uniform_policy

MAX_BODY_BYTES: Final = 4 << 20
"""Longest request: room for the longest status block in base64, and for the facts of a large machine."""

ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures of tokens that can be accepted (RFC 7518 3.1, RFC 8037): those made with a private key, so that nobody who checks can sign."""


class InvalidSetting(ValueError):
    """A setting that cannot be used; the text says which and why."""


@dataclass(frozen=True, slots=True)
class Oidc:
    """Whose bearer tokens are accepted (OpenID Connect Core 1.0, RFC 7519)."""

    issuer: str
    """URL, as in the claim `iss`."""
    audience: str
    """Expected in the claim `aud`."""
    jwks_url: str | None = None
    """The issuer's public keys; None: as the issuer's discovery document says."""
    scope_claim: str = "scope"
    """Claim that holds the scopes, as a list or separated by spaces."""
    algorithms: tuple[str, ...] = ("RS256", "ES256")
    """Of `ALGORITHMS`."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the service decides with, and what it accepts."""

    default_policy: Policy = field(default_factory=uniform_policy)
    """Decides events that name neither a policy nor a kernel."""
    custom: Mapping[str, Policy] = field(default_factory=dict)
    """The operator's own policies, by name."""
    max_body_bytes: int = MAX_BODY_BYTES
    """Longest request, and longest event of a batch."""
    max_workload: int = 2_000_000
    """Steps that deciding one event may take as estimated beforehand (`ras_triage.policies.workload`), about one microsecond each."""
    store: str = "memory:"
    """`memory:` or `sqlite:///PATH`."""
    queue_entries: int = 4096
    """Decisions that may wait to be written."""
    queue_bytes: int = 64 << 20
    """And their bytes, events and decisions together."""
    max_batch_bytes: int = 1 << 40
    """Longest batch, unpacked."""
    spill_bytes: int = 16 << 30
    """Results of one batch that may wait on disk for a client that does not read yet."""
    batch_workers: int = 0
    """Processes beside the service that decide the events of large batches beforehand."""
    worker_timeout_s: float = 10.0
    """Seconds that a worker process may take for an event, or a slice of a batch, before it is replaced."""
    retention_days: float | None = None
    """Decisions that are older are purged; None: never."""
    retention_bytes: int | None = None
    """The oldest decisions are purged while the store is larger; None: never."""
    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = 8080
    """TCP port; 0: any that is free."""
    tls_certificate: Path | None = None
    """PEM chain; None: without TLS."""
    tls_key: Path | None = None
    """PEM; None: it is in the certificate's file."""
    tls_key_password: str | None = field(default=None, repr=False)
    tls_client_ca: Path | None = None
    """PEM: who signs the certificates that clients must show; None: they need none."""
    trusted_hosts: tuple[str, ...] = ()
    """Names that `Host` may give besides loopback's; empty: any, where there is authentication."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses whose `X-Forwarded-*` are believed."""
    keys_file: Path | None = None
    """TOML: hashed API keys beside those of the store."""
    oidc: Oidc | None = None
    rate_limit: float | None = None
    """Events, and other requests, per second and key; None: no limit."""
    rate_burst: int | None = None
    """How many may come at once; None: as many as in one second."""
    max_header_bytes: int = 16 << 10
    """Request line and headers together."""
    max_connections: int = 4096
    """Open connections; fewer where the limit of open files is lower."""
    max_connections_per_peer: int | None = None
    """Open connections of one address (IPv6: of one /64), proxies excepted; None: half of them."""
    head_timeout_s: float = 10.0
    """Seconds for the TLS handshake, and for the request line and headers together."""
    keep_alive_s: float = 10.0
    """Seconds for which a connection without a request is kept after an answer."""
    body_timeout_s: float = 120.0
    """Seconds that a body may keep the service waiting; batches and imports excepted."""
    line_timeout_s: float = 60.0
    """Seconds that the next event of a batch, or the next line of an import, may keep the service waiting."""
    min_body_rate: int = 1024
    """Bytes per second that a body must bring, after a grace period."""
    answer_timeout_s: float = 120.0
    """Seconds for which a client may leave its answer unread."""
    max_in_flight: int = 1024
    """Requests that are answered at one time, streams among them."""
    max_in_flight_per_client: int | None = None
    """Those of one address and of one key or token subject; None: half of them."""
    max_imports: int = 32
    """Imports that are answered at one time."""
    max_batch_wait_s: float = 5.0
    """Seconds that a new batch or import may have to wait for its first decision; beyond, it is refused."""
    max_in_flight_bytes: int = 256 << 20
    """Bodies that are held at one time."""
    max_streams: int = 768
    """Event streams that are open at one time."""
    max_stream_filters: int = 256
    """Different filters among them: each is looked up and rendered by itself."""
    metrics_public: bool = False
    """`/metrics` answers without a key."""
    log_format: Literal["json", "text"] = "text"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    otel: bool = False
    """Traces are sent as the OpenTelemetry environment says."""


def is_loopback(host: str) -> bool:
    """Whether an address or name is this machine's own, out of reach for others."""
    try:
        return ip_address(host[1:-1] if host[:1] + host[-1:] == "[]" else host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def read_settings(policy_files: list[Path] | None = None, default_policy: str = UNIFORM) -> Settings:
    """Settings of a command that decides and serves nothing. Raises InvalidSetting."""
    return Settings(*read_policies(policy_files or [], default_policy))


def read_policies(files: list[Path], default: str) -> tuple[Policy, Mapping[str, Policy]]:
    """The policy that decides where none is named, and the operator's own. Raises InvalidSetting."""
    try:
        custom = load_policies(read_text(path) for path in files)
        return find_policy(default, custom), custom
    except (InvalidPolicy, UnknownPolicy) as error:
        raise InvalidSetting(str(error)) from None


def read_text(path: Path) -> str:
    """A file's text. Raises InvalidSetting."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidSetting(f"`{path}`: {(error.strerror or 'cannot be read').lower()}") from None
    except UnicodeDecodeError:
        raise InvalidSetting(f"`{path}` is not UTF-8 text") from None
