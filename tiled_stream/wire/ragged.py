"""Ragged arrays on the wire: a zip of buffers with its form and length in, slices of it in several formats out.

The awkward library holds the arrays. What must stay true: what `decode_ragged` returns fits the declared structure level by
level, so that its parts can be put below each other and read back with the very types that were declared. Imported when the first
such array comes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import awkward
import msgspec
import numpy
import orjson
import pyarrow

from ..domain.dtypes import from_numpy, to_numpy
from ..domain.errors import Malformed, NotAcceptable, NotSupported
from ..domain.slices import Along, Selection, parse_selection
from ..domain.structures import RaggedStructure
from .awkward_export import encode_arrow, encode_json, encode_parquet
from .zipped import ZIP, members_of, zipped

__all__ = [
    "Rows",
    "RowsWanted",
    "column_rows",
    "decode_ragged",
    "encode_ragged",
    "joined",
    "loaded",
    "parse_rows",
    "rows_of",
    "sliced",
    "structure_of_rows",
]

Layout = Any

_LISTS = (awkward.contents.ListArray, awkward.contents.ListOffsetArray, awkward.contents.RegularArray)


class Rows(msgspec.Struct, frozen=True):
    """Rows as they are kept: a zip in the one form that the structure has; how many rows, and how many elements in them."""

    body: bytes
    rows: int
    size: int


class RowsWanted(msgspec.Struct, frozen=True):
    """A slice of a ragged array: which rows, and what of each. `text` as the client wrote it."""

    rows: Along
    rest: tuple[int | slice, ...]
    text: str


def decode_ragged(body: bytes, structure: RaggedStructure) -> Rows:
    """Check an uploaded body against the structure, but for the number of its rows. `Malformed` says what does not fit."""
    layout = _layout(members_of(body))
    try:
        fault = awkward.validity_error(layout)
    except (ValueError, TypeError, IndexError) as error:
        fault = str(error)
    if fault:
        raise Malformed(f"The buffers of the ragged array contradict each other: {fault}")
    fitted = _fitted(layout, structure.shape[1:], to_numpy(structure.data_type), 1)
    return _rows(fitted)


def rows_of(rows: int, structure: RaggedStructure) -> Rows:
    """Rows that were never written: empty lists, and zeros where lengths are fixed."""
    return _rows(_collapsed(_blank(rows, structure.shape[1:], to_numpy(structure.data_type))))


def loaded(body: bytes) -> awkward.Array:
    """What `decode_ragged` made, as an array."""
    return awkward.Array(_layout(members_of(body)))


def column_rows(column: pyarrow.ChunkedArray) -> awkward.Array:
    """A column of lists; a missing list is an empty one, a missing number NaN. `NotSupported` for lists of other things."""
    try:
        array = awkward.from_arrow(column.combine_chunks())
        array = awkward.fill_none(array, [], axis=0)
        for axis in range(1, array.ndim):
            array = awkward.fill_none(array, numpy.nan if axis == array.ndim - 1 else [], axis=axis)
        layout = _canonical(awkward.to_packed(array, highlevel=False))
        structure_of_rows(awkward.Array(layout))
    except (ValueError, TypeError, NotImplementedError, Malformed) as error:
        raise NotSupported(
            f"A column of type {column.type} has no form as a ragged array: {str(error).splitlines()[0]}"
        ) from None
    return awkward.Array(layout)


def structure_of_rows(array: awkward.Array) -> RaggedStructure:
    """As one chunk. `Malformed` for what is no ragged array of plain elements."""
    shape: list[int | None] = [len(array)]
    layout = array.layout
    while isinstance(layout, _LISTS):
        shape.append(layout.size if isinstance(layout, awkward.contents.RegularArray) else None)
        layout = layout.content
    if not isinstance(layout, awkward.contents.NumpyArray) or awkward.parameters(awkward.Array(array.layout)):
        raise Malformed(f"{type(layout).__name__} is no element of a ragged array.")
    data = numpy.asarray(layout.data)
    shape += data.shape[1:]
    chunks = tuple(None if n is None else (n,) for n in shape)
    return RaggedStructure(from_numpy(data.dtype), tuple(shape), int(data.size), chunks)


def joined(parts: Sequence[awkward.Array], structure: RaggedStructure) -> awkward.Array:
    """Parts below each other, in the form of the structure."""
    if len(parts) == 1:
        return parts[0]
    layout = awkward.concatenate(parts, axis=0, highlevel=False)
    return awkward.Array(_fitted(layout, structure.shape[1:], to_numpy(structure.data_type), 1))


def parse_rows(text: str, structure: RaggedStructure) -> RowsWanted:
    """The wire's `slice=`. Rows are checked here; further axes when the slice is taken, for their lengths vary."""
    parts = text.split(",") if text else []
    if len(parts) > len(structure.shape):
        raise _unsatisfiable(text, f"the array has {len(structure.shape)} dimensions")
    count = structure.shape[0] or 0
    (rows,) = parse_selection(parts[0] if parts else "", (count,)).axes
    return RowsWanted(rows, tuple(_index(part, text) for part in parts[1:]), text)


def sliced(array: awkward.Array, wanted: RowsWanted, *, first: int) -> Any:
    """The slice of an array that begins at row `first`; a scalar if every axis was indexed."""
    along = msgspec.structs.replace(wanted.rows, start=wanted.rows.start - first if wanted.rows.count else 0)
    (rows,) = Selection((along,)).index
    try:
        return array[(rows, *wanted.rest)]
    except (ValueError, IndexError, TypeError) as error:
        raise _unsatisfiable(wanted.text, str(error).splitlines()[0]) from None


def encode_ragged(found: Any, media_type: str) -> bytes:
    """A slice in one of the formats announced; `NotAcceptable` for a scalar in a format of arrays."""
    if media_type == "application/json":
        return encode_json(found)
    if not isinstance(found, awkward.Array):
        raise NotAcceptable(f"A single value cannot be given as {media_type}; ask for application/json.")
    array = awkward.Array(_canonical(awkward.to_packed(found, highlevel=False)))
    if media_type == ZIP:
        return _zip(array.layout)
    if media_type == "application/x-parquet":
        return encode_parquet(array)
    return encode_arrow(array)


def _index(part: str, text: str) -> int | slice:
    pieces = part.split(":")
    try:
        numbers = [None if p == "" else int(p) for p in pieces]
    except ValueError:
        raise Malformed(f"{part!r} is no slice: expected start:stop:step or an integer.") from None
    if len(numbers) == 1 and numbers[0] is not None:
        return numbers[0]
    if not 2 <= len(numbers) <= 3 or (len(numbers) == 3 and numbers[2] == 0):
        raise Malformed(f"{part!r} in {text!r} is no slice: expected start:stop:step or an integer.")
    return slice(*numbers)


def _unsatisfiable(text: str, why: str) -> Malformed:
    return Malformed(f"Cannot apply the requested slice {text!r} to this ragged array: {why}.")


def _layout(members: dict[str, bytes]) -> Layout:
    try:
        text = orjson.loads(members["form"])
        form = awkward.forms.from_json(text) if isinstance(text, str) else awkward.forms.from_dict(text)
        length = int.from_bytes(members["length"], "big")
        buffers = {key: numpy.frombuffer(members[key], dtype) for key, dtype in form.expected_from_buffers().items()}
        return awkward.from_buffers(form, length, buffers, highlevel=False)
    except KeyError as error:
        raise Malformed(f"The zip lacks the member {error.args[0]!r}; it needs 'form', 'length' and every buffer.") from None
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise Malformed(f"The zip holds no ragged array: {str(error).splitlines()[0] if str(error) else error!r}") from None


def _rows(layout: Layout) -> Rows:
    leaf = layout
    while isinstance(leaf, _LISTS):
        leaf = leaf.content
    return Rows(_zip(layout), layout.length, int(leaf.data.size))


def _zip(layout: Layout) -> bytes:
    form, length, buffers = awkward.to_buffers(layout)
    members = {key: numpy.ascontiguousarray(buffer).tobytes() for key, buffer in buffers.items()}
    return zipped(members | {"length": length.to_bytes(8, "big"), "form": orjson.dumps(form.to_json())})


def _fitted(layout: Layout, axes: Sequence[int | None], dtype: numpy.dtype[Any], depth: int) -> Layout:
    """The layout with lists where lengths vary and regular ones where they are fixed, nothing beside."""
    return _collapsed(_fit(layout, axes, dtype, depth))


def _fit(layout: Layout, axes: Sequence[int | None], dtype: numpy.dtype[Any], depth: int) -> Layout:
    if isinstance(layout, awkward.contents.IndexedArray):
        layout = layout.project()
    if isinstance(layout, awkward.contents.EmptyArray):
        return _blank(0, axes, dtype)
    if isinstance(layout, awkward.contents.NumpyArray):
        layout = layout.to_RegularArray()
    if not axes:
        return _leaf(layout, dtype, depth)
    if not isinstance(layout, _LISTS):
        raise Malformed(f"The array is not deep enough: axis {depth} is declared and there are no lists.")
    if axes[0] is None:
        lists = layout.to_ListOffsetArray64(True)
        inner = lists.content[: int(lists.offsets[-1])]
        return awkward.contents.ListOffsetArray(lists.offsets, _fit(inner, axes[1:], dtype, depth + 1))
    return _regular(layout, axes[0], axes[1:], dtype, depth)


def _regular(layout: Layout, length: int, rest: Sequence[int | None], dtype: numpy.dtype[Any], depth: int) -> Layout:
    if layout.length == 0:
        return awkward.contents.RegularArray(_blank(0, rest, dtype), length, zeros_length=0)
    try:
        regular = layout.to_RegularArray()
    except ValueError:
        raise Malformed(f"Axis {depth} is declared with the length {length}, and lists of other lengths were sent.") from None
    if regular.size != length:
        raise Malformed(f"Axis {depth} is declared with the length {length}; {regular.size} was sent.")
    inner = regular.content[: regular.length * length]
    return awkward.contents.RegularArray(_fit(inner, rest, dtype, depth + 1), length, zeros_length=regular.length)


def _leaf(layout: Layout, dtype: numpy.dtype[Any], depth: int) -> Layout:
    if not isinstance(layout, awkward.contents.NumpyArray):
        raise Malformed(f"The array is deeper, or of another kind, than declared: {type(layout).__name__} at axis {depth}.")
    native = dtype.newbyteorder("=")
    data = numpy.asarray(layout.data)
    if data.dtype.newbyteorder("=") != native and data.size:
        raise Malformed(f"The elements are declared as {dtype}, and {data.dtype} was sent.")
    return awkward.contents.NumpyArray(numpy.ascontiguousarray(data, native))


def _blank(rows: int, axes: Sequence[int | None], dtype: numpy.dtype[Any]) -> Layout:
    if not axes:
        return awkward.contents.NumpyArray(numpy.zeros(rows, dtype.newbyteorder("=")))
    if axes[0] is None:
        offsets = awkward.index.Index64(numpy.zeros(rows + 1, numpy.int64))
        return awkward.contents.ListOffsetArray(offsets, _blank(0, axes[1:], dtype))
    return awkward.contents.RegularArray(_blank(rows * axes[0], axes[1:], dtype), axes[0], zeros_length=rows)


def _collapsed(layout: Layout) -> Layout:
    """Fixed axes at the end belong to the leaf, as clients have it."""
    if isinstance(layout, awkward.contents.ListOffsetArray):
        return awkward.contents.ListOffsetArray(layout.offsets, _collapsed(layout.content))
    if not isinstance(layout, awkward.contents.RegularArray):
        return layout
    sizes: list[int] = []
    node = layout
    while isinstance(node, awkward.contents.RegularArray):
        sizes.append(node.size)
        node = node.content
    if isinstance(node, awkward.contents.NumpyArray):
        data = numpy.asarray(node.data)
        return awkward.contents.NumpyArray(data.reshape(layout.length, *sizes, *data.shape[1:]))
    return awkward.contents.RegularArray(_collapsed(layout.content), layout.size, zeros_length=layout.length)


def _canonical(layout: Layout) -> Layout:
    """Of a slice, whose form follows from what was taken: lists by offsets, values where nothing varies."""
    if isinstance(layout, awkward.contents.EmptyArray):
        return awkward.contents.NumpyArray(numpy.zeros(0))
    if isinstance(layout, awkward.contents.IndexedArray):
        return _canonical(layout.project())
    if isinstance(layout, awkward.contents.UnmaskedArray):
        return _canonical(layout.content)
    if isinstance(layout, awkward.contents.ListArray | awkward.contents.ListOffsetArray):
        lists = layout.to_ListOffsetArray64(True)
        return awkward.contents.ListOffsetArray(lists.offsets, _canonical(lists.content[: int(lists.offsets[-1])]))
    if isinstance(layout, awkward.contents.RegularArray):
        inner = _canonical(layout.content[: layout.length * layout.size])
        return _collapsed(awkward.contents.RegularArray(inner, layout.size, zeros_length=layout.length))
    return layout
