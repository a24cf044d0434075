"""Blocks of arrays that nobody declared, and pages of trees: whatever is asked, all is there once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import h5py
from hypothesis import given, settings
from hypothesis import strategies as st

from tiled_stream.files.blocks import blocks
from tiled_stream.files.port import Entry, Source, Tree
from tiled_stream.files.trees import FileTree
from tiled_stream.files.wall import Wall

LENGTHS = st.integers(0, 1 << 40) | st.integers(0, 50)


@given(st.lists(st.tuples(LENGTHS, st.integers(1, 1 << 20)), max_size=3))
@settings(max_examples=60, deadline=None)
def test_chunks_of_a_file_are_kept_or_put_together(axes: list[tuple[int, int]]) -> None:
    shape, chunk = [length for length, _ in axes], [step for _, step in axes]
    for (length, step), told in zip(axes, blocks(shape, chunk, 8), strict=True):
        assert sum(told) == length
        assert len(told) <= 100_000
        assert all(part % step == 0 for part in told[:-1])
        if length and length <= step * 100_000:
            assert set(told[:-1]) <= {step}
            assert 0 < told[-1] <= step


@given(st.lists(st.integers(0, 5000), max_size=3), st.sampled_from([1, 8, 4096]))
@settings(max_examples=60, deadline=None)
def test_blocks_of_a_good_size(shape: list[int], itemsize: int) -> None:
    told = blocks(shape, None, itemsize)
    assert [sum(axis) for axis in told] == shape
    assert prod(max(axis) for axis in told) * itemsize <= 32 << 20


class Flat:
    """A tree of one level; every third child cannot be told."""

    def __init__(self, count: int) -> None:
        self._count = count

    def entry(self, keys: tuple[str, ...]) -> Entry:
        if keys and int(keys[0]) % 3 == 0:
            raise KeyError(keys[0])
        return Entry(family="container", count=0 if keys else self._count)

    def names(self, keys: tuple[str, ...], *, offset: int, limit: int, backwards: bool) -> list[str]:
        names = [str(n) for n in range(self._count)]
        return (names[::-1] if backwards else names)[offset : offset + limit]


@given(st.integers(0, 40), st.integers(1, 7), st.booleans(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_pages_hold_every_child_once(count: int, limit: int, backwards: bool, bare: bool) -> None:
    @contextmanager
    def open_flat(source: Source, path: Path) -> Iterator[Tree]:
        yield Flat(count)

    source = Source(structure=None, mimetype="x/y", uris=("file:///",), wall=Wall(["/"]), now=0.0, limit=1)
    tree, found = FileTree(source, open_flat), []
    for offset in range(0, count, limit):
        page = tree.page((), offset=offset, limit=limit, backwards=backwards, bare=bare)
        assert page.count == count
        found += [int(name) for name, _ in page.children]
    wanted = [n for n in range(count) if bare or n % 3]
    assert found == (wanted[::-1] if backwards else wanted)


@given(
    st.dictionaries(st.text("abcé ._%{}#?", min_size=1, max_size=4).filter(lambda t: t.strip(".")), st.integers(0, 9), max_size=8)
)
@settings(max_examples=30, deadline=None)
def test_names_of_hdf5_are_told_as_they_are(values: dict[str, int]) -> None:
    import tempfile

    from tiled_stream.files.formats import open_tree

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "x.h5")
        with h5py.File(path, "w") as file:
            for name, value in values.items():
                file.attrs[name] = value
                file[name] = value
        fields: dict[str, Any] = {"wall": Wall([directory]), "now": 0.0, "limit": 1 << 20, "uris": (f"file://{path}",)}
        tree = open_tree(Source(structure=None, mimetype="application/x-hdf5", **fields))
        assert tree.look(())[0].metadata == values
        assert sorted(name for name, _ in tree.page((), offset=0, limit=99, backwards=False).children) == sorted(values)
        assert all(tree.look((name,))[0].family == "array" for name in values)
