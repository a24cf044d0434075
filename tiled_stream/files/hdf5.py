"""HDF5 files, with h5py: one dataset of a file, which its detector may still be writing.

A file is opened for one read and closed again (`hdf5_open.py`). Without SWMR a file that is open for writing cannot be read
safely, and HDF5 says so; that is `Unavailable`. Files are not locked, unless the parameter `locking` says so: a reader that holds
a lock would make a detector fail that opens its file again.

Parameters: `dataset` (a path), `slice` and (`squeeze`, which changes nothing: axes of length 1 do not matter), `swmr`, `locking`.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy

from ..domain.errors import Malformed, NotSupported
from ..domain.slices import Along, parse_selection
from ..domain.structures import ArrayStructure
from .hdf5_links import Hdf5Links
from .hdf5_open import HDF5, Opening, is_writing
from .port import Array, ArrayFile, Source
from .reading import not_ready, reading
from .rows import within

__all__ = ["open_hdf5", "opening_of"]

with contextlib.suppress(ImportError):
    importlib.import_module("hdf5plugin")  # more compressions, if somebody installed them


@contextmanager
def open_hdf5(source: Source, path: Path) -> Iterator[ArrayFile]:
    """The dataset that the parameters name, or the keys that lead inside."""
    name = source.parameters.get("dataset") or ("" if source.inside else None)
    if not isinstance(name, str):
        raise Malformed("The data source has no parameter 'dataset': the path of a dataset in the HDF5 file.")
    name = "/".join((name, *source.inside))
    with reading(source, path, ValueError, KeyError, RuntimeError, TypeError), HDF5, ExitStack() as stack:
        try:
            dataset = Hdf5Links(source.wall, stack, opening_of(source)).dataset(path, name)
            assert isinstance(source.structure, ArrayStructure)
            file = _Dataset(dataset, is_bytes=source.structure.data_type.kind == "S", is_told=bool(source.inside))
            yield file if source.inside else _view(file, source)
        except OSError as error:
            if is_writing(error):
                raise not_ready(path, f"it is open for writing, not in SWMR mode ({error})") from None
            raise


class _Dataset:
    """An `ArrayFile`. Texts of variable length take as much as the longest one, as `is_bytes` (in UTF-8) or as characters.

    `is_told`: its structure was found in the file and not declared; see `hdf5_tree.py`.
    """

    def __init__(self, dataset: h5py.Dataset, *, is_bytes: bool, is_told: bool) -> None:
        if dataset.shape is None:
            raise Malformed(f"The dataset {dataset.name!r} is empty: it has a type and no shape.")
        _check_filters(dataset)
        self._dataset = dataset
        self.shape: tuple[int, ...] = dataset.shape
        self.dtype: numpy.dtype[Any] = dataset.dtype
        self._is_bytes = is_bytes
        self._is_told = is_told

    def read(self, axes: Sequence[Along]) -> Array:
        """See `ArrayFile`."""
        index = tuple(slice(a.start, a.start + (a.count - 1) * a.step + 1, a.step) for a in axes)
        if self.dtype.kind != "O":
            return numpy.asarray(self._dataset[index])
        if h5py.check_string_dtype(self.dtype) is None:
            if self._is_told:
                return numpy.zeros(tuple(a.count for a in axes), "S1")
            raise NotSupported(f"The dataset {self._dataset.name!r} holds elements of variable length or references.")
        texts = self._dataset[index] if self._is_bytes else self._dataset.asstr()[index]
        return numpy.asarray(texts).astype("S" if self._is_bytes else "U")


class _View:
    """A region of a file, as if it were all."""

    def __init__(self, file: ArrayFile, axes: Sequence[Along]) -> None:
        self._file = file
        self._axes = axes
        self.shape = tuple(a.count for a in axes)
        self.dtype = file.dtype

    def read(self, axes: Sequence[Along]) -> Array:
        return self._file.read([within(outer, inner) for outer, inner in zip(self._axes, axes, strict=True)])


def _check_filters(dataset: h5py.Dataset) -> None:
    """`NotSupported` if the chunks are compressed by something that is not here."""
    filters = dataset.id.get_create_plist()
    for number in range(filters.get_nfilters()):
        code, _, _, name = filters.get_filter(number)
        if not h5py.h5z.filter_avail(code):
            raise NotSupported(
                f"The dataset {dataset.name!r} is compressed by {name.decode(errors='replace') or 'a filter'} ({code}), which "
                "this server does not have: pip install hdf5plugin"
            )


def opening_of(source: Source) -> Opening:
    """As the parameters `swmr` and `locking` say."""
    locking = source.parameters.get("locking")
    if locking not in (None, True, False, "best-effort"):
        raise Malformed(f"The parameter 'locking' is true, false, 'best-effort' or null, not {locking!r}.")
    return Opening(may_follow=source.parameters.get("swmr") is not False, locking=locking)


def _view(file: _Dataset, source: Source) -> ArrayFile:
    """What the parameter `slice` takes: a text such as ``(:, 0, ...)``, or a list of such parts."""
    wanted = source.parameters.get("slice")
    if not wanted:
        return file
    text = ",".join(map(str, wanted)) if isinstance(wanted, list) else str(wanted)
    parts = [p for p in text.replace(" ", "").strip("()[]").split(",") if p]
    if parts.count("...") > 1:
        raise Malformed(f"The parameter 'slice' holds more than one ellipsis: {text!r}.")
    if "..." in parts:
        at = parts.index("...")
        parts[at : at + 1] = [":"] * (len(file.shape) - len(parts) + 1)
    taken = parse_selection(",".join(parts), file.shape).axes
    if any(a.step < 0 for a in taken):
        raise NotSupported("The parameter 'slice' cannot go backwards.")
    if len(source.uris) > 1 and taken[0] != Along(0, 1, file.shape[0]):
        raise NotSupported("The parameter 'slice' cannot choose along the first axis of several files.")
    return _View(file, taken)
