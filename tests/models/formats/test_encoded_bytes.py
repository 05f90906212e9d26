"""Tests of bytes encoded as text."""

from __future__ import annotations

import base64

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ras_triage.models.formats.encoded_bytes import is_encoded, unpack_base64, unpack_text, unpack_words
from ras_triage.models.scalars import AmbiguousEncoding, HexadecimalBytes


def is_hexadecimal(data: bytes) -> bool:
    return isinstance(data, HexadecimalBytes)


def unpacked(text: bytes) -> bytes | None:
    return unpack_text(text, is_hexadecimal, "bytes")


@given(data=st.binary(min_size=1, max_size=200), width=st.integers(2, 40))
def test_hexadecimal_comes_back_however_it_is_broken_into_lines(data, width):
    text = data.hex()
    assert unpacked("\n".join(text[at : at + width] for at in range(0, len(text), width)).encode()) == data


@given(data=st.binary(min_size=1, max_size=200))
def test_base64_that_is_not_also_hexadecimal_comes_back(data):
    text = base64.b64encode(data)
    assume(set(text) - set(b"0123456789abcdefABCDEFxX"))
    assert unpacked(text) == data
    assert unpack_base64(text.decode()) == data


@pytest.mark.parametrize("text", [b"0x0102", b"0X01 02", b"01\r\n02\r\n", b"# a dump\n01 02\n  # its end\n"])
def test_hexadecimal_may_have_a_prefix_blanks_and_comments(text):
    assert unpacked(text) == b"\1\2"


def test_text_that_is_plausible_in_neither_encoding_is_refused():
    with pytest.raises(AmbiguousEncoding, match="could be 4 bytes in hexadecimal or 6 bytes in base64, and neither looks like a HEST"):
        unpack_text(b"dead beef", lambda data: data.startswith(b"HEST"), "a HEST")


@pytest.mark.parametrize("text", [b"", b"  \n", b"012", b"kernel: oops", b"AAA", b"\xff\xfe", b"a-b_"])
def test_text_that_stands_for_no_bytes_is_none(text):
    assert unpacked(text) is None
    assert not is_encoded(text)


def test_words_are_little_endian_and_their_addresses_are_left_out():
    text = b"# xp\n000000007d5d80b0: 0x00000001 0x00000098\n000000007d5d80b8: 0xa5bc1114 0x00000000\n"
    assert unpack_words(text) == bytes.fromhex("01000000 98000000 1411bca5 00000000")


@pytest.mark.parametrize("text", [b"", b"0102 0304", b"00000001 x", b"000000010"])
def test_words_have_eight_digits_each(text):
    assert unpack_words(text) is None


@pytest.mark.parametrize("text", ["A", "AAA", "A?==", "\xff"])
def test_base64_that_is_none_says_so(text):
    with pytest.raises(ValueError, match="not valid base64"):
        unpack_base64(text)
