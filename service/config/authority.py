"""Parser of the values of `Host` and `Origin` (RFC 9110 7.2, RFC 6454 7.1)."""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv6Address, ip_address
from typing import Final

from ras_triage.models.frozen import frozen

_REG_NAME: Final = r"(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+"
_IP_FUTURE: Final = r"\[[vV][0-9A-Fa-f]+\.[A-Za-z0-9._~!$&'()*+,;=:-]+\]"
_AUTHORITY: Final = re.compile(rf"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<name>{_REG_NAME}|{_IP_FUTURE}))(?::(?P<port>[0-9]{{0,5}}))?")
"""uri-host [ ":" port ] (RFC 3986 3.2.2 and 3.2.3), with a non-empty host (RFC 9110 4.2.1)."""

_ORIGIN: Final = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>.*)")

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@frozen
class Authority:
    """A host and its port."""

    host: str
    """In lower case; an IPv6 address in its canonical form, without brackets (RFC 5952)."""
    port: int | None
    """TCP port; None: the scheme's default."""


@frozen
class Origin:
    """Origin of a web page (RFC 6454)."""

    scheme: str
    """In lower case."""
    host: str
    port: int | None
    """TCP port, the scheme's default filled in; None for a scheme without one."""


def parse_authority(text: str) -> Authority | None:
    """Parse the value of a `Host` header; None: malformed."""
    found = _AUTHORITY.fullmatch(text)
    if found is None:
        return None
    port = int(found["port"]) if found["port"] else None
    if port is not None and port > 0xFFFF:
        return None
    if found["ipv6"] is None:
        return Authority(found["name"].lower(), port)
    try:
        return Authority(str(IPv6Address(found["ipv6"])), port)
    except AddressValueError:
        return None


def parse_host(text: str) -> str | None:
    """Normalise a host name or address without a port; None: malformed."""
    is_bare_ipv6 = ":" in text and not text.startswith("[")
    found = parse_authority(f"[{text}]:0" if is_bare_ipv6 else f"{text}:0")  # a second port if the text has one already
    return None if found is None else found.host


def parse_origin(text: str) -> Origin | None:
    """Parse the value of an `Origin` header; None: `null`, several origins, or malformed."""
    found = _ORIGIN.fullmatch(text)
    authority = None if found is None else parse_authority(found["authority"])
    if found is None or authority is None:
        return None
    return origin_of(found["scheme"].lower(), authority)


def origin_of(scheme: str, authority: Authority) -> Origin:
    """Return the origin of a scheme and authority."""
    return Origin(scheme, authority.host, authority.port if authority.port is not None else _DEFAULT_PORTS.get(scheme))


def origin_text(origin: Origin) -> str:
    """Return an origin as a browser sends it (RFC 6454 6.2)."""
    host = f"[{origin.host}]" if ":" in origin.host and not origin.host.startswith("[") else origin.host
    port = "" if origin.port in (None, _DEFAULT_PORTS.get(origin.scheme)) else f":{origin.port}"
    return f"{origin.scheme}://{host}{port}"


def is_loopback(host: str) -> bool:
    """Return whether an address or name is loopback."""
    try:
        return ip_address(host[1:-1] if host[:1] + host[-1:] == "[]" else host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
