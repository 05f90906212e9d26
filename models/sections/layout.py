"""Fixed binary layouts: declared fields with a common decoder and encoder.

A field is present if its validation bit is set, or if its bytes are not zero although the bit is clear: firmware does both.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from ras_triage.models.scalars import U16, EncodedBytes, WireModel


class ReservedBytes(WireModel):
    """Nonzero bytes that belong to no field of the specification, or to none that is present."""

    offset: U16
    """Bytes from the start of the structure."""
    data: EncodedBytes
    """The bytes."""


@dataclass(frozen=True, slots=True)
class LayoutField:
    """Position and validity of a structure field, declared as metadata of its annotation: `Annotated[U8 | None, LayoutField(8, 1)]`."""

    offset: int
    """Bytes from the start of the structure."""
    size: int
    """Bytes."""
    valid: int = 0
    """Mask of the field's validation bit; 0: the field is always present."""
    shift: int = 0
    """Lowest bit of the field within its little-endian bytes."""
    bits: int = 0
    """Width in bits; 0: all of its bytes."""
    kind: Literal["int", "bytes", "text"] = "int"
    overlay_bits: int = 0
    """Mask of the validation bits of overlays on the same bytes: if one is set, this field is present only if its own bit is set."""
    is_overlay: bool = False
    """The field overlays the bytes of another one, and is present only if its own validation bit is set."""
    name: str = ""
    """Name of the annotated field, set by `layout_of`."""

    @property
    def start(self) -> int:
        """Return the lowest bit of the field within the structure."""
        return self.offset * 8 + self.shift

    @property
    def width(self) -> int:
        """Return the width of the field in bits."""
        return self.bits or self.size * 8

    def is_present(self, raw: int, validation: int, length: int) -> bool:
        """Return whether a payload of `length` bytes has the field."""
        if self.valid & validation or not self.valid:
            return raw != 0 or self.offset + self.size <= length
        return raw != 0 and not self.is_overlay and not self.overlay_bits & validation

    def read(self, raw: int) -> int | bytes | str:
        """Return the value for the field's bits."""
        if self.kind == "int":
            return raw
        data = raw.to_bytes(self.size, "little")
        return data if self.kind == "bytes" else data.decode("latin-1").rstrip("\0")

    def write(self, value: Any) -> int:
        """Return the field's bits for a value. Raises ValueError if the value is too wide."""
        if isinstance(value, int):
            raw = value
        else:
            data = value.encode("latin-1") if isinstance(value, str) else value
            if self.kind == "bytes" and len(data) != self.size:
                raise ValueError(f"`{self.name}`: expected {self.size} bytes, got {len(data)}")
            raw = int.from_bytes(data, "little")
        if raw < 0 or raw >> self.width:
            raise ValueError(f"`{self.name}`: value does not fit into {self.width} bits")
        return raw


@dataclass(frozen=True, slots=True)
class Layout:
    """Layout of a structure of fixed size."""

    size: int
    """Bytes."""
    fields: tuple[LayoutField, ...]
    validation: LayoutField | None = None
    """The validation bits; None if the structure has none."""
    table: tuple[tuple[LayoutField, int, int], ...] = dataclasses.field(init=False)
    """Each field with its lowest bit and its mask within the structure."""
    named: tuple[tuple[str, LayoutField, int, int, int], ...] = dataclasses.field(init=False)
    """The same between the field's name, by which encoding finds that most have no value, and the highest number that fits."""

    def __post_init__(self) -> None:
        fields = (*((self.validation,) if self.validation else ()), *self.fields)
        table = tuple((field, field.start, (1 << field.width) - 1 << field.start) for field in fields)
        object.__setattr__(self, "table", table)
        object.__setattr__(self, "named", tuple((field.name, field, start, mask, mask >> start) for field, start, mask in table))

    def decode(self, payload: bytes) -> dict[str, Any]:
        """Return the fields present in `payload`, and `reserved` and `payload_length` if needed.

        Bytes after the structure are ignored.
        """
        whole = int.from_bytes(payload[: self.size], "little")
        validation = 0
        if self.validation:
            validation = whole >> self.validation.start & (1 << self.validation.width) - 1
        fields: dict[str, Any] = {}
        rest = whole
        for field, start, mask in self.table:
            raw = (whole & mask) >> start
            if field.is_present(raw, validation, len(payload)):
                fields[field.name] = field.read(raw)
                rest &= ~mask
        if rest:
            fields["reserved"] = _runs(rest.to_bytes(self.size, "little"))
        if len(payload) < self.size:
            fields["payload_length"] = len(payload)
        return fields

    def invalid_fields(self, values: Mapping[str, Any]) -> list[str]:
        """Return the names of the fields that have a value although their explicit validation bit is clear."""
        validation = values.get(self.validation.name) if self.validation else None
        if validation is None:
            return []
        return [field.name for field in self.fields if field.valid and not field.valid & validation and values.get(field.name) is not None]

    def encode(self, values: Mapping[str, Any], *, validation: int = 0, defaults: Mapping[str, int] | None = None) -> bytes:
        """Return the structure's bytes, truncated to `payload_length` if that is set.

        Without explicit validation bits, they are `validation` and the bits of all fields present. `defaults` are values of absent fields,
        unless the payload is truncated. Raises ValueError if fields contradict each other or a value does not fit.
        """
        length = values.get("payload_length")
        if defaults and length is None:
            values = {**values, **{name: default for name, default in defaults.items() if values.get(name) is None}}
        whole = written = 0
        for name, field, start, mask, highest in self.named:
            value = values.get(name)
            if value is None:
                continue
            placed = (value if type(value) is int and 0 <= value <= highest else field.write(value)) << start
            if (field.is_overlay or field.overlay_bits) and (whole ^ placed) & written & mask:
                raise ValueError(f"`{name}` contradicts another field in the same bytes")
            whole |= placed
            written |= mask
            validation |= field.valid
        if self.validation and values.get(self.validation.name) is None:
            whole |= validation << self.validation.start
            written |= self.table[0][2]
        whole |= self._place_reserved(values.get("reserved") or (), written)
        data = whole.to_bytes(self.size, "little")
        return data if length is None else self._cut(data, length)

    def _place_reserved(self, reserved: tuple[ReservedBytes, ...], written: int) -> int:
        bits = 0
        for run in reserved:
            placed = int.from_bytes(run.data, "little") << run.offset * 8
            if placed >> self.size * 8:
                raise ValueError(f"reserved bytes at offset {run.offset} are outside the {self.size} bytes of the structure")
            if placed & (written | bits):
                raise ValueError(f"reserved bytes at offset {run.offset} overlap a field that has a value")
            bits |= placed
        return bits

    def _cut(self, data: bytes, length: int) -> bytes:
        if length >= self.size:
            raise ValueError(f"`payload_length` must be less than the {self.size} bytes of the structure")
        if any(data[length:]):
            raise ValueError(f"a field after the {length} bytes of `payload_length` has a value")
        return data[:length]


def _runs(data: bytes) -> tuple[ReservedBytes, ...]:
    """Return the runs of nonzero bytes in `data`."""
    runs: list[ReservedBytes] = []
    start = None
    for offset, byte in enumerate(data + b"\0"):
        if byte and start is None:
            start = offset
        elif not byte and start is not None:
            runs.append(ReservedBytes.model_construct(offset=start, data=data[start:offset]))
            start = None
    return tuple(runs)


M = TypeVar("M", bound=WireModel)

_VALIDATION = "validation_bits"


def layout_of(model: type[WireModel], size: int) -> Layout:
    """Return the layout of the first `size` bytes of a structure from the `LayoutField` metadata of a model's fields.

    The field `validation_bits` has the validation bits. Fields are ordered by position, an overlaid field before its overlays.
    """
    fields = [
        dataclasses.replace(found, name=name)
        for name, info in model.model_fields.items()
        for found in info.metadata
        if isinstance(found, LayoutField) and found.offset + found.size <= size
    ]
    fields.sort(key=lambda field: (field.offset, field.shift, -field.size))
    validation = next((field for field in fields if field.name == _VALIDATION), None)
    return Layout(size, tuple(field for field in fields if field is not validation), validation)


def with_layout(size: int) -> Callable[[type[M]], type[M]]:
    """Set the class attribute `LAYOUT` of a model to the layout of its `size` bytes."""

    def set_layout(model: type[M]) -> type[M]:
        model.LAYOUT = layout_of(model, size)  # type: ignore[attr-defined]
        return model

    return set_layout
