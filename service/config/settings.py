"""Settings of the service: type, limits, default, meaning and sources of each.

`ras_triage.service.config.loading` reads them from options, environment and file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, SecretStr

from ras_triage.policies.catalog.policies import UNIFORM, Policy, uniform_policy
from ras_triage.policies.catalog.vmms import Vmm
from ras_triage.service.config.authority import is_loopback
from ras_triage.service.config.declaration import DeclaredSetting, Setting, Written, declared_settings
from ras_triage.service.config.store_address import MEMORY, default_store
from ras_triage.service.config.value_types import (
    Algorithms,
    Bytes,
    FileMode,
    Files,
    Hosts,
    HttpsUrl,
    Origins,
    Port,
    Positive,
    PositiveNumber,
    Seconds,
    StoreAddress,
    Text,
    Words,
    WorkerCount,
)

MAX_BODY_BYTES: Final = 4 << 20
"""Default limit for request bodies: enough for the longest status block in base64, and for the facts of a large machine."""

_MOST_OF_USE: Final = 4
"""Worker processes that saturate the writer."""


class InvalidSetting(ValueError):
    """Invalid setting; the text has its name and the reason."""


def default_workers() -> int:
    """Return the default number of workers: one per usable processor, 0 if there is only one."""
    processors = len(os.sched_getaffinity(0))
    return min(processors, _MOST_OF_USE) if processors > 1 else 0


@dataclass(frozen=True, slots=True)
class Oidc:
    """Issuer of accepted bearer tokens (OpenID Connect Core 1.0, RFC 7519). Its settings begin with `oidc_`."""

    issuer: Annotated[HttpsUrl, Setting("URL of the OpenID Connect issuer of bearer tokens, equal to the claim `iss`", reloadable=True)]
    audience: Annotated[Text, Setting("expected value of the claim `aud`; required together with `oidc_issuer`", reloadable=True)]
    jwks_url: Annotated[
        HttpsUrl | None, Setting("URL of the issuer's public keys; none: from the issuer's discovery document", reloadable=True)
    ] = None
    scope_claim: Annotated[Text, Setting("claim with the scopes, as a list or separated by spaces", reloadable=True)] = "scope"
    algorithms: Annotated[Algorithms, Setting("accepted signature algorithms, all of them asymmetric", reloadable=True)] = (
        "RS256",
        "ES256",
    )


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of the service."""

    default_policy: Annotated[
        Policy,
        Setting(
            "policy for events that name neither a policy nor a kernel",
            option="--default-policy",
            metavar="NAME",
            reloadable=True,
            written=Written(str, UNIFORM),
        ),
    ] = field(default_factory=uniform_policy)
    custom_policies: Annotated[
        Mapping[str, Policy],
        Setting(
            "custom policies in TOML, one in each file",
            option="--policy-file",
            metavar="FILE",
            reloadable=True,
            written=Written(Files, (), "policy_files"),
        ),
    ] = field(default_factory=dict)
    custom_vmms: Annotated[
        Mapping[str, Vmm],
        Setting(
            "custom VMMs in TOML, one in each file",
            option="--vmm-file",
            metavar="FILE",
            reloadable=True,
            written=Written(Files, (), "vmm_files"),
        ),
    ] = field(default_factory=dict)
    host: Annotated[
        Text,
        Setting(
            "address to listen on; other addresses than loopback require API keys or an OIDC issuer", option="--host", metavar="ADDRESS"
        ),
    ] = "127.0.0.1"
    port: Annotated[Port, Setting("TCP port to listen on; 0: any free port", option="--port", metavar="PORT")] = 8080
    uds: Annotated[
        Path | None, Setting("Unix domain socket to listen on, in place of `host` and `port`; none: TCP", option="--uds", metavar="PATH")
    ] = None
    uds_mode: Annotated[FileMode, Setting("permissions of the Unix domain socket, octal")] = "600"
    store: Annotated[
        StoreAddress,
        Setting(
            "store of the decisions, `sqlite:///PATH` or `memory:`; by default a file in the state folder of this user",
            option="--store",
            metavar="URL",
            service_default=default_store,
        ),
    ] = MEMORY
    max_body_bytes: Annotated[Bytes, Setting("size limit of request bodies and of an event of a batch, decompressed")] = MAX_BODY_BYTES
    max_workload: Annotated[
        Positive,
        Setting("limit for the estimated workload of one event, in steps of about one microsecond of one core", reloadable=True),
    ] = 2_000_000
    queue_entries: Annotated[Positive, Setting("size of the write queue in decisions")] = 4096
    queue_bytes: Annotated[Bytes, Setting("size of the write queue in bytes of events and decisions")] = 64 << 20
    max_batch_bytes: Annotated[Bytes, Setting("size limit of a batch, decompressed", reloadable=True)] = 1 << 40
    spill_bytes: Annotated[
        Bytes, Setting("results of one batch that are buffered on disk while the client does not read", reloadable=True)
    ] = 16 << 30
    batch_workers: Annotated[
        WorkerCount,
        Setting(
            "worker processes for the events of large batches; by default one per usable processor, at most 4, and 0 if there is only one",
            service_default=default_workers,
        ),
    ] = 0
    worker_timeout_s: Annotated[
        float,
        Field(ge=0.1, allow_inf_nan=False),
        Setting("time limit of a worker process for a slice of a batch or one large event, in seconds; then it is killed and replaced"),
    ] = 10.0
    retention_days: Annotated[
        PositiveNumber | None, Setting("age in days from which decisions are purged; none: no purge by age", reloadable=True)
    ] = None
    retention_bytes: Annotated[
        Bytes | None,
        Setting("total size of all store files above which the oldest decisions are purged; none: no purge by size", reloadable=True),
    ] = None
    tls_certificate: Annotated[
        Path | None, Setting("certificate chain in PEM; enables TLS", option="--tls-cert", metavar="FILE", reloadable=True)
    ] = None
    tls_key: Annotated[
        Path | None,
        Setting("private key in PEM; none: it is in the certificate's file", option="--tls-key", metavar="FILE", reloadable=True),
    ] = None
    tls_key_password: Annotated[SecretStr | None, Setting("password of the private key", reloadable=True)] = None
    tls_client_ca: Annotated[
        Path | None,
        Setting(
            "CA certificates in PEM; clients must have a certificate that one of them signed",
            option="--tls-client-ca",
            metavar="FILE",
            reloadable=True,
        ),
    ] = None
    trusted_hosts: Annotated[
        Hosts, Setting("accepted values of the header `Host` besides loopback: names or addresses without a port", reloadable=True)
    ] = ()
    cors_origins: Annotated[
        Origins,
        Setting(
            "origins whose web pages may use the service from a browser; `*`: all, where authentication is required",
            reloadable=True,
        ),
    ] = ()
    trusted_proxies: Annotated[Words, Setting("addresses of proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are used")] = ()
    keys_file: Annotated[
        Path | None,
        Setting("hashed API keys in TOML, in addition to those in the store", option="--keys-file", metavar="FILE", reloadable=True),
    ] = None
    oidc: Oidc | None = None
    rate_limit: Annotated[
        PositiveNumber | None,
        Setting("rate limit of each key in requests, and in events of batches, per second; none: no limit", reloadable=True),
    ] = None
    rate_burst: Annotated[Positive | None, Setting("burst size of the rate limit; none: the requests of one second", reloadable=True)] = (
        None
    )
    max_header_bytes: Annotated[Bytes, Setting("size limit of request line and headers together")] = 16 << 10
    max_connections: Annotated[Positive, Setting("limit for open connections; at most three quarters of the limit for open files")] = 4096
    max_connections_per_peer: Annotated[
        Positive | None,
        Setting("limit for open connections of one address (IPv6: of one /64), except trusted proxies; none: half of `max_connections`"),
    ] = None
    head_timeout_s: Annotated[Seconds, Setting("timeout for the TLS handshake, and for request line and headers together, in seconds")] = (
        10.0
    )
    keep_alive_s: Annotated[Seconds, Setting("keep-alive timeout of idle connections, in seconds")] = 10.0
    body_timeout_s: Annotated[Seconds, Setting("timeout in seconds for a request body, except batches and imports")] = 120.0
    line_timeout_s: Annotated[Seconds, Setting("timeout for the next event of a batch or the next line of an import, in seconds")] = 60.0
    min_body_rate: Annotated[Bytes, Setting("minimum rate of a body in bytes per second, after a grace period")] = 1024
    answer_timeout_s: Annotated[Seconds, Setting("timeout for a client that does not read its response, in seconds")] = 120.0
    max_in_flight: Annotated[Positive, Setting("limit for concurrent requests, streams included")] = 1024
    max_in_flight_per_client: Annotated[
        Positive | None,
        Setting("limit for concurrent requests of one address, and of one key or token subject; none: half of `max_in_flight`"),
    ] = None
    max_imports: Annotated[Positive, Setting("limit for concurrent imports, of which one client may use half")] = 32
    max_batch_wait_s: Annotated[
        Seconds, Setting("estimated wait for the first decision from which a new batch or import gets 503, in seconds")
    ] = 5.0
    max_in_flight_bytes: Annotated[Bytes, Setting("memory limit for request bodies and incomplete events of batches")] = 256 << 20
    max_streams: Annotated[Positive, Setting("limit for open event streams")] = 768
    max_stream_filters: Annotated[
        Positive, Setting("limit for distinct filters of open event streams, of which one client may use half")
    ] = 256
    metrics_public: Annotated[bool, Setting("whether `/metrics` needs no key", reloadable=True)] = False
    log_format: Annotated[Literal["json", "text"], Setting("format of the log: `json` or `text`", reloadable=True)] = "text"
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Setting("lowest level that is logged: `debug`, `info`, `warning` or `error`", reloadable=True),
    ] = "info"
    otel: Annotated[bool, Setting("whether traces are sent, as configured by the `OTEL_*` variables")] = False

    @property
    def is_local(self) -> bool:
        """Whether only this machine can connect."""
        return self.uds is not None or is_loopback(self.host)


@lru_cache(maxsize=1)
def all_settings() -> Mapping[str, DeclaredSetting]:
    """Return every setting of the service by name."""
    return {setting.name: setting for setting in declared_settings(Settings)}
