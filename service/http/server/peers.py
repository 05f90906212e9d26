"""Peers, the unit of connection and request limits."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

ANY_ADDRESS: Final = "*"
"""Wildcard: every address is a trusted proxy."""

_PREFIX_BITS: Final = 64
"""Bits of the prefix of an IPv6 address; a site chooses the rest freely (RFC 4291 2.5.4)."""


@lru_cache(maxsize=4096)
def peer_of(host: str) -> str:
    """Return the peer of an address: an IPv4 address or a user (`uid:1000`) itself, the /64 prefix of an IPv6 address."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(IPv6Network((int(address) >> _PREFIX_BITS << _PREFIX_BITS, _PREFIX_BITS)))
    return str(address)


class TrustedProxies:
    """Addresses or users of proxies, which forward requests of many clients and have no per-peer limit."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._all = ANY_ADDRESS in addresses
        self._users = frozenset(address for address in addresses if address.startswith("uid:"))
        self._networks = tuple(network for address in addresses if (network := _network(address)) is not None)

    def __contains__(self, host: str) -> bool:
        if self._all:
            return True
        try:
            address = ip_address(host)
        except ValueError:
            return host in self._users
        return any(address in network for network in self._networks)


def _network(address: str) -> IPv4Network | IPv6Network | None:
    try:
        return ip_network(address, strict=False)
    except ValueError:
        return None
