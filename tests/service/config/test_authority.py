"""Property tests of the parser of `Host` and `Origin`."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ras_triage.service.config.authority import Authority, Origin, origin_text, parse_authority, parse_host, parse_origin

NAMES = st.from_regex(r"(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+", fullmatch=True)
PORTS = st.none() | st.integers(0, 0xFFFF)
PARTS = [
    "[", "]", ":", "::", ".", "%", "%41", "@", "/", "?", "#", "\\", ",", "é", "٣", "-", "_", "*", "localhost", "LOCALHOST", "evil.com",
    "127.0.0.1", "::1", "[::1]", "80", "99999", "http://", "null", "v1.x", " ", "\t", "\r\n", "\x00",
]  # fmt: skip
PIECES = st.lists(st.sampled_from(PARTS), max_size=6).map("".join)


def written(host: str, port: int | None) -> str:
    return host if port is None else f"{host}:{port}"


def follows_the_grammar(text: str) -> bool:
    """RFC 3986 3.2.2, by splitting: nothing of this is shared with the parser."""
    if not text.isascii() or any(char in text for char in '@/?#\\ "<>^`{|}') or any(ord(char) <= 0x20 or char == "\x7f" for char in text):
        return False
    host, colon, port = text.rpartition(":") if not text.endswith("]") else (text, "", "")
    if not colon:
        host, port = text, ""
    if port and not (port.isdigit() and int(port) <= 0xFFFF):
        return False
    if host.startswith("["):
        return host.endswith("]") and "]" not in host[1:-1] and "%" not in host and (host[1] in "vV" or bool(IPv6Address(host[1:-1])))
    return bool(host) and not set(host) & set("[]:") and not re.search("%(?![0-9A-Fa-f]{2})", host)


@given(NAMES, PORTS)
def test_a_name_is_a_host(name: str, port: int | None) -> None:
    assert parse_authority(written(name, port)) == Authority(name.lower(), port)
    assert parse_host(name) == name.lower()
    assert parse_authority(f"{name}:") == Authority(name.lower(), None)


@given(st.ip_addresses(v=4), PORTS)
def test_an_ipv4_address_is_a_host(address: IPv4Address, port: int | None) -> None:
    assert parse_authority(written(str(address), port)) == Authority(str(address), port)


@given(st.ip_addresses(v=6), PORTS, st.booleans())
def test_an_ipv6_address_is_a_host_however_it_is_written(address: IPv6Address, port: int | None, exploded: bool) -> None:
    text = address.exploded.upper() if exploded else str(address)
    assert parse_authority(written(f"[{text}]", port)) == Authority(str(address), port)
    assert parse_host(text) == parse_host(f"[{text}]") == str(address)
    assert exploded or "." in text or parse_authority(written(text, port)) is None


@given(PIECES)
def test_only_what_follows_the_grammar_is_a_host(text: str) -> None:
    if parse_authority(text) is not None:
        assert follows_the_grammar(text), text


@given(st.sampled_from(["http", "https", "HTTPS", "ftp"]), NAMES | st.ip_addresses(v=6).map(lambda address: f"[{address}]"), PORTS)
def test_an_origin_is_a_scheme_a_host_and_a_port(scheme: str, host: str, port: int | None) -> None:
    found = parse_origin(f"{scheme}://{written(host, port)}")
    default = {"http": 80, "https": 443}.get(scheme.lower())
    assert found == Origin(scheme.lower(), host.lower().strip("[]"), default if port is None else port)


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("HTTPS://Triage.Example:443", "https://triage.example"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://[::0:1]:80", "http://[::1]"),
        ("https://[fd00::1]:80", "https://[fd00::1]:80"),
        ("http://a.example:", "http://a.example"),
        ("tauri://localhost", "tauri://localhost"),
    ],
)
def test_an_origin_is_written_as_a_browser_sends_it(text: str, sent: str) -> None:
    origin = parse_origin(text)
    assert origin is not None
    assert origin_text(origin) == sent
    assert parse_origin(sent) == origin


@given(PIECES, PIECES)
def test_only_what_follows_the_grammar_is_an_origin(scheme: str, authority: str) -> None:
    text = f"{scheme}://{authority}"
    if parse_origin(text) is not None:
        first, _, rest = text.partition("://")
        assert re.fullmatch("[A-Za-z][A-Za-z0-9+.-]*", first)
        assert follows_the_grammar(rest)
