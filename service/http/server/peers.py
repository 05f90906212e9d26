"""Network peers: whose connections and requests count together."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

ANYBODY: Final = "*"
"""A trusted proxy of any address."""

_SITE_BITS: Final = 64
"""Bits of an IPv6 address that name a site; the rest is the site's own to choose (RFC 4291 2.5.4)."""


@lru_cache(maxsize=4096)
def peer_of(host: str) -> str:
    """Return what an address counts as: an IPv4 address as it is, an IPv6 address as its /64."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(IPv6Network((int(address) >> _SITE_BITS << _SITE_BITS, _SITE_BITS)))
    return str(address)


class TrustedProxies:
    """Addresses that forward the requests of others, and so have no share of their own."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._everybody = ANYBODY in addresses
        self._networks = tuple(network for address in addresses if (network := _network(address)) is not None)

    def __contains__(self, host: str) -> bool:
        if self._everybody:
            return True
        try:
            address = ip_address(host)
        except ValueError:
            return False
        return any(address in network for network in self._networks)


def _network(address: str) -> IPv4Network | IPv6Network | None:
    try:
        return ip_network(address, strict=False)
    except ValueError:
        return None
