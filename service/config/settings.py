"""Settings of the service and their defaults.

`ras_triage.service.config.sources` reads them from options, environment and file.
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
"""Default limit for request bodies: enough for the longest status block in base64, and for the facts of a large machine."""

ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signature algorithms that can be accepted (RFC 7518 3.1, RFC 8037): asymmetric ones, so that a verifier cannot sign."""


class InvalidSetting(ValueError):
    """Invalid setting; the text has its name and the reason."""


@dataclass(frozen=True, slots=True)
class Oidc:
    """Issuer of accepted bearer tokens (OpenID Connect Core 1.0, RFC 7519)."""

    issuer: str
    """URL, equal to the claim `iss`."""
    audience: str
    """Expected value of the claim `aud`."""
    jwks_url: str | None = None
    """URL of the issuer's public keys; None: from the issuer's discovery document."""
    scope_claim: str = "scope"
    """Claim with the scopes, as a list or separated by spaces."""
    algorithms: tuple[str, ...] = ("RS256", "ES256")
    """Accepted signature algorithms, of `ALGORITHMS`."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of the service."""

    default_policy: Policy = field(default_factory=uniform_policy)
    """Policy for events that name neither a policy nor a kernel."""
    custom: Mapping[str, Policy] = field(default_factory=dict)
    """Custom policies, by name."""
    max_body_bytes: int = MAX_BODY_BYTES
    """Size limit of request bodies, and of an event of a batch."""
    max_workload: int = 2_000_000
    """Limit for the estimated workload of one event, in steps of about one microsecond (`ras_triage.policies.workload`)."""
    store: str = "memory:"
    """`memory:` or `sqlite:///PATH`."""
    queue_entries: int = 4096
    """Write queue: decisions."""
    queue_bytes: int = 64 << 20
    """Write queue: bytes of events and decisions."""
    max_batch_bytes: int = 1 << 40
    """Size limit of a batch, decompressed."""
    spill_bytes: int = 16 << 30
    """Results of one batch that are buffered on disk while the client does not read."""
    batch_workers: int = 0
    """Worker processes for the events of large batches."""
    worker_timeout_s: float = 10.0
    """Time limit of a worker process for an event or a slice of a batch, in seconds; then it is replaced."""
    retention_days: float | None = None
    """Age from which decisions are purged; None: never."""
    retention_bytes: int | None = None
    """Size of the store above which the oldest decisions are purged; None: never."""
    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = 8080
    """TCP port; 0: any free one."""
    tls_certificate: Path | None = None
    """PEM file with the certificate chain; None: no TLS."""
    tls_key: Path | None = None
    """PEM file; None: the key is in the certificate's file."""
    tls_key_password: str | None = field(default=None, repr=False)
    tls_client_ca: Path | None = None
    """PEM file with the CA for required client certificates; None: not required."""
    trusted_hosts: tuple[str, ...] = ()
    """Accepted values of `Host` besides loopback; empty: any, if authentication is required."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses of proxies whose `X-Forwarded-*` headers are used."""
    keys_file: Path | None = None
    """TOML file with hashed API keys, in addition to those in the store."""
    oidc: Oidc | None = None
    rate_limit: float | None = None
    """Rate limit for each key: events, and other requests, per second; None: no limit."""
    rate_burst: int | None = None
    """Burst size of the rate limit; None: the number for one second."""
    max_header_bytes: int = 16 << 10
    """Size limit of request line and headers together."""
    max_connections: int = 4096
    """Limit for open connections; lower if the limit for open files requires it."""
    max_connections_per_peer: int | None = None
    """Limit for open connections of one address (IPv6: of one /64), except trusted proxies; None: half of `max_connections`."""
    head_timeout_s: float = 10.0
    """Timeout for the TLS handshake, and for request line and headers together, in seconds."""
    keep_alive_s: float = 10.0
    """Keep-alive timeout of idle connections, in seconds."""
    body_timeout_s: float = 120.0
    """Timeout for a request body, except batches and imports, in seconds."""
    line_timeout_s: float = 60.0
    """Timeout for the next event of a batch or the next line of an import, in seconds."""
    min_body_rate: int = 1024
    """Minimum rate of a body in bytes per second, after a grace period."""
    answer_timeout_s: float = 120.0
    """Timeout for a client that does not read its response, in seconds."""
    max_in_flight: int = 1024
    """Limit for concurrent requests, streams included."""
    max_in_flight_per_client: int | None = None
    """Limit for concurrent requests of one address, and of one key or token subject; None: half of `max_in_flight`."""
    max_imports: int = 32
    """Limit for concurrent imports."""
    max_batch_wait_s: float = 5.0
    """Estimated wait for the first decision from which a new batch or import is refused, in seconds."""
    max_in_flight_bytes: int = 256 << 20
    """Memory limit for all request bodies."""
    max_streams: int = 768
    """Limit for open event streams."""
    max_stream_filters: int = 256
    """Limit for distinct filters of open event streams: each has a query of its own."""
    metrics_public: bool = False
    """Whether `/metrics` needs no key."""
    log_format: Literal["json", "text"] = "text"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    otel: bool = False
    """Whether traces are sent, as configured by the OpenTelemetry environment variables."""


def is_loopback(host: str) -> bool:
    """Return whether an address or name is loopback."""
    try:
        return ip_address(host[1:-1] if host[:1] + host[-1:] == "[]" else host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def read_settings(policy_files: list[Path] | None = None, default_policy: str = UNIFORM) -> Settings:
    """Return settings for a command that decides without a service. Raises InvalidSetting."""
    return Settings(*read_policies(policy_files or [], default_policy))


def read_policies(files: list[Path], default: str) -> tuple[Policy, Mapping[str, Policy]]:
    """Read policy files. Return the default policy and the custom policies. Raises InvalidSetting."""
    try:
        custom = load_policies(read_text(path) for path in files)
        return find_policy(default, custom), custom
    except (InvalidPolicy, UnknownPolicy) as error:
        raise InvalidSetting(str(error)) from None


def read_text(path: Path) -> str:
    """Read a text file. Raises InvalidSetting."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidSetting(f"`{path}`: {(error.strerror or 'cannot be read').lower()}") from None
    except UnicodeDecodeError:
        raise InvalidSetting(f"`{path}` is not UTF-8 text") from None
