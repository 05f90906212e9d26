"""Fixed binary layouts, declared field by field and read and written by one routine.

A field is there if its validation bit says so, or if its bytes are not zero although the bit is clear: firmware does both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ras_triage.models.scalars import U16, Base64, WireModel


class ReservedBytes(WireModel):
    """Bytes that are not zero where the specification has no field, or none that the validation bits let through."""

    offset: U16
    """Bytes from the start of the structure."""
    data: Base64


@dataclass(frozen=True, slots=True)
class LayoutField:
    """One field of a structure."""

    name: str
    offset: int
    """Bytes from the start of the structure."""
    size: int
    """Bytes."""
    valid: int = 0
    """Mask of the validation bit that vouches for the field; 0: the field is always there."""
    shift: int = 0
    """Lowest bit of the field within its little-endian bytes."""
    bits: int = 0
    """Width in bits; 0: all of its bytes."""
    kind: Literal["int", "bytes", "text"] = "int"
    yields_to: int = 0
    """Mask of validation bits that give these bytes to another view: then the field is there only if its own bit is set."""
    strict: bool = False
    """The field is a view of another's bytes, there only if its own bit is set."""

    @property
    def start(self) -> int:
        """Lowest bit of the field within the structure."""
        return self.offset * 8 + self.shift

    @property
    def width(self) -> int:
        """Bits."""
        return self.bits or self.size * 8

    def is_present(self, raw: int, validation: int, length: int) -> bool:
        """Whether a payload of `length` bytes has the field."""
        if self.valid & validation or not self.valid:
            return raw != 0 or self.offset + self.size <= length
        return raw != 0 and not self.strict and not self.yields_to & validation

    def read(self, raw: int) -> int | bytes | str:
        """The field's value."""
        if self.kind == "int":
            return raw
        data = raw.to_bytes(self.size, "little")
        return data if self.kind == "bytes" else data.decode("latin-1").rstrip("\0")

    def write(self, value: Any) -> int:
        """The field's bits. Raises ValueError where the value is wider than the field."""
        if isinstance(value, int):
            raw = value
        else:
            data = value.encode("latin-1") if isinstance(value, str) else value
            if self.kind == "bytes" and len(data) != self.size:
                raise ValueError(f"`{self.name}` has {len(data)} bytes, not {self.size}")
            raw = int.from_bytes(data, "little")
        if raw < 0 or raw >> self.width:
            raise ValueError(f"`{self.name}` does not fit into {self.width} bits")
        return raw


@dataclass(frozen=True, slots=True)
class Layout:
    """A structure of fixed size."""

    size: int
    """Bytes."""
    items: tuple[LayoutField, ...]
    validation: LayoutField | None = None
    """The validation bits; None where the structure has none."""
    table: tuple[tuple[LayoutField, int, int], ...] = field(init=False)
    """Each item with its lowest bit and its mask in place."""

    def __post_init__(self) -> None:
        items = (*((self.validation,) if self.validation else ()), *self.items)
        object.__setattr__(self, "table", tuple((item, item.start, (1 << item.width) - 1 << item.start) for item in items))

    def decode(self, payload: bytes) -> dict[str, Any]:
        """The fields that `payload` has, with `reserved` and `payload_length` where there is need.

        Bytes behind the structure are not read.
        """
        whole = int.from_bytes(payload[: self.size], "little")
        validation = 0
        if self.validation:
            validation = whole >> self.validation.start & (1 << self.validation.width) - 1
        fields: dict[str, Any] = {}
        rest = whole
        for item, start, mask in self.table:
            raw = (whole & mask) >> start
            if item.is_present(raw, validation, len(payload)):
                fields[item.name] = item.read(raw)
                rest &= ~mask
        if rest:
            fields["reserved"] = _runs(rest.to_bytes(self.size, "little"))
        if len(payload) < self.size:
            fields["payload_length"] = len(payload)
        return fields

    def not_valid(self, values: Mapping[str, Any]) -> list[str]:
        """The names of the fields that have a value although explicit validation bits do not vouch for them."""
        validation = values.get(self.validation.name) if self.validation else None
        if validation is None:
            return []
        return [item.name for item in self.items if item.valid and not item.valid & validation and values.get(item.name) is not None]

    def encode(self, values: Mapping[str, Any], *, validation: int = 0, defaults: Mapping[str, int] | None = None) -> bytes:
        """The structure's bytes, cut to `payload_length` where that is given.

        Without explicit validation bits they are `validation` and the bits of the fields that are there. `defaults` stand in for fields
        that are absent, except in a payload that is cut. Raises ValueError where two fields contradict each other or nothing has room.
        """
        length = values.get("payload_length")
        if defaults and length is None:
            values = {**values, **{name: default for name, default in defaults.items() if values.get(name) is None}}
        whole = written = 0
        for item, start, mask in self.table:
            value = values.get(item.name)
            if value is None:
                continue
            placed = item.write(value) << start
            if (whole ^ placed) & written & mask:
                raise ValueError(f"`{item.name}` contradicts another field in the same bytes")
            whole |= placed
            written |= mask
            validation |= item.valid
        if self.validation and values.get(self.validation.name) is None:
            whole |= validation << self.validation.start
            written |= self.table[0][2]
        whole |= self._place_reserved(values.get("reserved") or (), written)
        return self._cut(whole, length)

    def _place_reserved(self, reserved: tuple[ReservedBytes, ...], written: int) -> int:
        bits = 0
        for run in reserved:
            placed = int.from_bytes(run.data, "little") << run.offset * 8
            if placed >> self.size * 8:
                raise ValueError(f"reserved bytes at offset {run.offset} lie beyond the {self.size} bytes of the structure")
            if placed & (written | bits):
                raise ValueError(f"reserved bytes at offset {run.offset} lie within a field that has a value")
            bits |= placed
        return bits

    def _cut(self, whole: int, length: int | None) -> bytes:
        data = whole.to_bytes(self.size, "little")
        if length is None:
            return data
        if length >= self.size:
            raise ValueError(f"`payload_length` is for payloads shorter than the {self.size} bytes of the structure")
        if any(data[length:]):
            raise ValueError(f"a field has a value beyond the payload's {length} bytes")
        return data[:length]


def _runs(data: bytes) -> tuple[ReservedBytes, ...]:
    """The non-zero stretches of `data`."""
    runs: list[ReservedBytes] = []
    start = None
    for offset, byte in enumerate(data + b"\0"):
        if byte and start is None:
            start = offset
        elif not byte and start is not None:
            runs.append(ReservedBytes.model_construct(offset=start, data=data[start:offset]))
            start = None
    return tuple(runs)
