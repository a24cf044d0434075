"""Geometry of chunks, against numpy and against itself."""

from __future__ import annotations

import itertools
import math

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiled_stream.domain.chunks import MAX_CHUNKS, block_region, check_array, extended, fits, pad_offset, size
from tiled_stream.domain.errors import Conflict, Malformed
from tiled_stream.domain.structures import ArrayStructure, DataType

F8 = DataType(8, "f", "little")


def array(*chunks: tuple[int, ...], shape: tuple[int, ...] | None = None, dims: tuple[str, ...] | None = None) -> ArrayStructure:
    return ArrayStructure(F8, chunks, tuple(map(sum, chunks)) if shape is None else shape, dims)


CHUNKS = st.lists(st.lists(st.integers(0, 4), max_size=4).map(tuple), max_size=3).map(tuple)


@given(CHUNKS)
def test_blocks_tile_the_array(chunks: tuple[tuple[int, ...], ...]) -> None:
    structure = array(*chunks)
    check_array(structure)
    times_covered = numpy.zeros(structure.shape, int)
    for block in itertools.product(*(range(len(parts)) for parts in chunks)):
        offset, shape = block_region(chunks, block)
        times_covered[tuple(slice(o, o + n) for o, n in zip(offset, shape, strict=True))] += 1
        assert fits(structure, offset, shape)
    assert (times_covered == 1).all()


@given(CHUNKS, st.data())
def test_growth_holds_the_old_and_the_new(chunks: tuple[tuple[int, ...], ...], data: st.DataObject) -> None:
    structure = array(*chunks)
    ndim = len(chunks)
    shape = data.draw(st.tuples(*[st.integers(0, 5)] * ndim))
    offset = data.draw(st.integers(0, ndim).flatmap(lambda n: st.tuples(*[st.integers(0, 9)] * n)))
    grown = extended(structure, offset, shape)
    check_array(grown)
    full = pad_offset(offset, ndim)
    assert grown.shape == tuple(max(old, o + n) for old, o, n in zip(structure.shape, full, shape, strict=True))
    assert fits(grown, offset, shape)
    assert (grown == structure) == fits(structure, offset, shape)
    assert extended(grown, offset, shape) == grown
    for old, new, before, after in zip(structure.shape, grown.shape, structure.chunks, grown.chunks, strict=True):
        if old == new:
            assert after == before
        else:
            assert len(set(after[:-1])) <= 1
            assert after[-1] <= after[0]


@pytest.mark.parametrize(
    ("chunks", "offset", "shape", "expected"),
    [
        (((3,), (2,)), (3,), (8, 2), ((3, 3, 3, 2), (2,))),
        (((3, 1), (2,)), (4,), (1, 2), ((3, 2), (2,))),
        (((0,), (1,)), (0,), (4, 1), ((4,), (1,))),
        (((0,), (1,)), (2,), (3, 1), ((3, 2), (1,))),
        (((), (1,)), (0,), (2, 1), ((2,), (1,))),
        (((2,), (2, 2)), (0, 3), (1, 2), ((2,), (2, 2, 1))),
        ((), (), (), ()),
    ],
)
def test_growth_by_example(
    chunks: tuple[tuple[int, ...], ...], offset: tuple[int, ...], shape: tuple[int, ...], expected: tuple[tuple[int, ...], ...]
) -> None:
    assert extended(array(*chunks), offset, shape).chunks == expected


def test_growth_keeps_what_is_not_geometry() -> None:
    structure = array((2,), (3,), dims=("time", "x"))
    grown = extended(structure, (2,), (2, 3))
    assert (grown.data_type, grown.dims, grown.resizable) == (F8, ("time", "x"), False)


def test_a_region_of_other_dimensions_conflicts() -> None:
    with pytest.raises(Conflict):
        extended(array((2,), (3,)), (0,), (2,))


@pytest.mark.parametrize(("offset", "shape"), [((10**9,), (1,)), ((10**18 - 1,), (1,)), ((0,), (10**18,))])
def test_growth_beyond_what_can_be_listed_is_refused_at_once(offset: tuple[int, ...], shape: tuple[int, ...]) -> None:
    with pytest.raises(Malformed):
        extended(array((1,)), offset, shape)


@pytest.mark.parametrize(
    "wrong",
    [
        array((3,), shape=(4,)),
        array((3,), (2,), shape=(3,)),
        array((5, -1)),
        array((-1,)),
        array((3,), (2,), dims=("x",)),
        array(*[(1,)] * 33),
        array((1 << 40,), (1 << 40,)),
        array((0,), (1 << 62,)),
        array((0,) * (MAX_CHUNKS + 1)),
        ArrayStructure(DataType(8, "O"), ((1,),), (1,)),
    ],
)
def test_wrong_structures_are_refused(wrong: ArrayStructure) -> None:
    with pytest.raises(Malformed):
        check_array(wrong)


@pytest.mark.parametrize("block", [(0,), (0, 0, 0), (2, 0), (0, 1), (-1, 0), ()])
def test_blocks_that_do_not_exist(block: tuple[int, ...]) -> None:
    with pytest.raises(Malformed):
        block_region(((3, 1), (2,)), block)


def test_a_scalar_has_one_block() -> None:
    check_array(array())
    assert block_region((), ()) == ((), ())


def test_offsets_are_padded() -> None:
    assert pad_offset((2,), 3) == (2, 0, 0)
    for wrong in ((1, 2), (-1,)):
        with pytest.raises(Malformed):
            pad_offset(wrong, 1)


@given(st.lists(st.integers(0, 9), max_size=4))
def test_size(shape: list[int]) -> None:
    assert size(shape) == math.prod(shape) == numpy.zeros(shape).size
