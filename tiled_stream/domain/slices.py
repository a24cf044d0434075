"""Selections of an array, in numpy's basic indexing.

A `Selection` is already checked against a shape: integers are in range and non-negative, slices are `slice.indices` of
their axis. The grammar of the wire's `slice=` stands in `parse_selection`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from .errors import Malformed

__all__ = ["Along", "Selection", "parse_ints", "parse_selection", "parse_shape", "whole"]

_NUMBER = re.compile(r"-?[0-9]{1,18}\Z")


class Along(msgspec.Struct, frozen=True):
    """What is taken of one axis: `start`, `start + step`, …, `count` elements. `drop`: an integer index, the axis goes."""

    start: int
    step: int
    count: int
    drop: bool = False


class Selection(msgspec.Struct, frozen=True):
    """One `Along` an axis of the array, all of them."""

    axes: tuple[Along, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of what comes out."""
        return tuple(a.count for a in self.axes if not a.drop)

    @property
    def index(self) -> tuple[int | slice, ...]:
        """The same as a basic index of numpy."""
        return tuple(a.start if a.drop else _slice(a) for a in self.axes)


def whole(shape: Sequence[int]) -> Selection:
    """All of an array."""
    return Selection(tuple(Along(0, 1, length) for length in shape))


def parse_selection(text: str, shape: Sequence[int]) -> Selection:
    """The wire's `slice=`: a comma list of integers and ``start:stop:step``; missing trailing axes are whole."""
    parts = text.split(",") if text else []
    if len(parts) > len(shape):
        raise Malformed(f"Too many indices: {text!r} has {len(parts)}, the array {len(shape)} dimensions.")
    axes = [_along(part, length, axis) for axis, (part, length) in enumerate(zip(parts, shape, strict=False))]
    return Selection((*axes, *(Along(0, 1, length) for length in shape[len(parts) :])))


def parse_ints(text: str) -> tuple[int, ...]:
    """A comma list of non-negative integers; empty text is none."""
    if not text:
        return ()
    numbers = tuple(_int(part, text) for part in text.split(","))
    if any(n < 0 for n in numbers):
        raise Malformed(f"{text!r}: expected integers that are not negative.")
    return numbers


def parse_shape(text: str) -> tuple[int, ...]:
    """A shape: a comma list, or the word `scalar`."""
    return () if text == "scalar" else parse_ints(text)


def _slice(along: Along) -> slice:
    if along.count == 0:
        return slice(0, 0, 1)
    stop = along.start + along.step * along.count
    return slice(along.start, None if stop < 0 else stop, along.step)


def _along(part: str, length: int, axis: int) -> Along:
    pieces = part.split(":")
    if len(pieces) > 3:
        raise Malformed(f"{part!r} is no slice: expected start:stop:step or an integer.")
    if len(pieces) == 1:
        index = _int(part, part)
        if not -length <= index < length:
            raise Malformed(f"Index {index} is out of range: axis {axis} has length {length}.")
        return Along(index % length, 1, 1, drop=True)
    start, stop, step = [None if p == "" else _int(p, part) for p in (*pieces, "", "")[:3]]
    if step == 0:
        raise Malformed(f"{part!r}: the step of a slice cannot be 0.")
    taken = range(*slice(start, stop, step).indices(length))
    return Along(taken.start if len(taken) else 0, taken.step if len(taken) else 1, len(taken))


def _int(text: str, whole_text: str) -> int:
    if _NUMBER.match(text) is None:
        raise Malformed(f"{whole_text!r}: {text!r} is not an integer.")
    return int(text)
