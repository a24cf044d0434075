"""What a reader of registered files is, and what it is opened with.

A reader gives what a data source *declares*: its shape, its data type, its columns. The file has the last word about values only.
What is *inside* of a file that is registered as a container (`Tree`) nobody declared: there the file says it all, each time anew.
What must stay true: nothing here writes; nothing is held open between two reads, so that a detector can go on writing, renaming
or deleting; only the files that a selection touches are opened, each after it has passed the wall (`wall.py`).

Everything blocks: a reader is called in a thread. Formats are in files of their own, `formats.py` knows them all, and what every
reader does is checked by `testing/reader_contract.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import numpy

from ..domain.errors import Malformed, NotFound
from ..domain.nodes import Spec
from ..domain.slices import Along, Selection
from ..domain.structures import Family, Structure
from .wall import Wall

if TYPE_CHECKING:
    import pyarrow

__all__ = [
    "Array",
    "ArrayFile",
    "ArrayReader",
    "Damaged",
    "Entry",
    "Missing",
    "OpenArray",
    "OpenTree",
    "ReadTable",
    "Reader",
    "Source",
    "TableReader",
    "Tree",
]

Array = numpy.ndarray[Any, Any]


class Missing(NotFound):
    """A registered file is not there: not yet, or no more. Who knows how old the registration is can tell which."""


class Damaged(Malformed):
    """A registered file cannot be understood as what it is registered as."""


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """One data source, as a reader needs it.

    uris: of its files, in order; they have not passed the wall yet
    schema: of a table, the declared one; None for an array
    now: seconds since the epoch: a file that was changed a moment before may be incomplete
    limit: bytes that may be held in memory for one answer
    named: URIs by the argument of a reader that they are for, for readers that take more than a list of files
    reader: of an operator, before those that are known
    inside: keys that lead to the data within a file that holds several things; none for a file that is the data
    """

    structure: Structure | None
    mimetype: str
    uris: tuple[str, ...]
    wall: Wall
    now: float
    limit: int
    schema: pyarrow.Schema | None = None
    parameters: dict[str, Any] = {}
    named: Mapping[str, tuple[str, ...]] = {}
    reader: Reader | None = None
    inside: tuple[str, ...] = ()

    def path(self, number: int) -> Path:
        """The file of this number. `Forbidden` if it lies outside of what may be read."""
        return self.wall.path_of(self.uris[number])


class ArrayReader(Protocol):
    """An array that was opened from a `Source`."""

    def read(self, selection: Selection) -> Array:
        """A selection of the declared array, in the declared dtype, C-contiguous.

        `Unavailable` while the file is being written, `Missing` if there is none, `Damaged` if it holds something else,
        `Malformed` if it does not fit what is declared.
        """
        ...


class TableReader(Protocol):
    """A table that was opened from a `Source`."""

    def read(self, columns: Sequence[str] | None, partition: int | None) -> pyarrow.Table:
        """The columns (None: all) in the declared order and types; the rows of one file, or of all of them one after the other.

        Errors as of an array. `Unsatisfiable` for a partition that no file stands for.
        """
        ...


class ArrayFile(Protocol):
    """One file while it is open: what a format has to offer."""

    @property
    def shape(self) -> tuple[int, ...]:
        """As in the file, now."""
        ...

    @property
    def dtype(self) -> numpy.dtype[Any]:
        """As in the file, in its byte order."""
        ...

    def read(self, axes: Sequence[Along]) -> Array:
        """A region, of the shape of the counts: one `Along` an axis, all counts at least 1, all steps positive, all within."""
        ...


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One thing inside of a file, as it is now. `metadata` has a place in JSON.

    structure: of an array; schema: of a table; count: of a container, its children
    """

    family: Family
    structure: Structure | None = None
    schema: pyarrow.Schema | None = None
    metadata: dict[str, Any] = {}
    specs: tuple[Spec, ...] = ()
    count: int = 0


class Tree(Protocol):
    """What is in one file, while it is open. `keys` lead down from where the data source begins."""

    def entry(self, keys: tuple[str, ...]) -> Entry:
        """`NotFound` if there is nothing, `Forbidden` if it lies outside of the wall, another `Refused` if it cannot be told."""
        ...

    def names(self, keys: tuple[str, ...], *, offset: int, limit: int, backwards: bool) -> list[str]:
        """A page of the children of a container. A name that no client could use is left out."""
        ...


#: Opens a file that holds several things. The path has passed the wall.
OpenTree = Callable[[Source, Path], AbstractContextManager[Tree]]
#: Opens a file of an array. The path has passed the wall.
OpenArray = Callable[[Source, Path], AbstractContextManager[ArrayFile]]
#: Reads those of the named columns that a file of a table has, as they are there.
ReadTable = Callable[[Source, Path, Sequence[str]], "pyarrow.Table"]


class Reader(msgspec.Struct, frozen=True, kw_only=True):
    """How files of one type are read: what an operator names for a mimetype of his own. At least one of the functions.

    open_array: for nodes of family `array`; with `is_stack` each file is a frame, else files hold rows along the first axis
    read_table: for nodes of family `table`, a partition a file
    open_tree: for nodes of family `container`; the arrays and tables in it are read by the other two, with `Source.inside`
    """

    open_array: OpenArray | None = None
    is_stack: bool = False
    read_table: ReadTable | None = None
    open_tree: OpenTree | None = None
