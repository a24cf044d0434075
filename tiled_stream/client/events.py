"""What a subscriber is told: frozen values, decoded when somebody looks, and then once.

Each has the `path` of its node, a `sequence`, a `time` (UTC) and the number of its `subscription`. For what happened to the
subscription and not in the log (`Gap`, `Live`, `Reconnected`, `Ended`, `Failed`, `Appeared`) the sequence is the cursor of the
node (0: nothing came yet) and the time that of this computer.
"""

from __future__ import annotations

from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec

from ..domain.dtypes import to_numpy
from ..domain.errors import Malformed, NotSupported, TiledStreamError
from ..domain.nodes import Spec
from ..domain.structures import DataType
from .fetch import Fetcher

if TYPE_CHECKING:
    import awkward
    import numpy
    import pyarrow

__all__ = [
    "Appeared",
    "ArrayData",
    "ArrayRef",
    "ChildCreated",
    "ChildUpdated",
    "Ended",
    "Event",
    "Failed",
    "Gap",
    "Live",
    "Other",
    "RaggedData",
    "Reconnected",
    "SparseData",
    "TableData",
    "Update",
]


#: What a representation does not spell out.
_COMMON = (
    "subscription",
    "path",
    "sequence",
    "time",
    "covers",
    "data_type",
    "data_source",
    "data_sources",
    "fetcher",
    "structure",
)


class Event(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """What all have in common."""

    subscription: int
    path: tuple[str, ...]
    sequence: int
    time: datetime

    def __repr__(self) -> str:
        more = {name: getattr(self, name) for name in self.__struct_fields__ if name not in _COMMON}
        said = [
            f"{name}=<{len(value)} bytes>" if isinstance(value, bytes) else f"{name}={value!r}" for name, value in more.items()
        ]
        return f"<{type(self).__name__} {self.sequence} of {'/'.join(self.path) or 'the root'}: {', '.join(said)}>"


class Update(Event, frozen=True, kw_only=True, dict=True):
    """A record of the log. `covers`: first and last sequence that it stands for; its own unless records were put together."""

    covers: tuple[int, int]


class _Payload(Update, frozen=True, kw_only=True, dict=True):
    #: None if the subscription asked for headers only.
    payload: bytes | None

    def _bytes(self) -> bytes:
        if self.payload is None:
            raise NotSupported("This subscription asked for headers only; subscribe with payload=True to get data.")
        return self.payload


class ArrayData(_Payload, frozen=True, kw_only=True, dict=True):
    """Cells of an array. `offset` says where they go; `block` names a chunk instead; neither: the whole array."""

    shape: tuple[int, ...]
    offset: tuple[int, ...] | None
    block: tuple[int, ...] | None
    data_type: DataType

    @cached_property
    def array(self) -> numpy.ndarray[Any, Any]:
        """The cells, of this `shape`; read-only. `Malformed` if they are of another type than the array has now."""
        import numpy

        payload, dtype = self._bytes(), to_numpy(self.data_type)
        try:
            return numpy.frombuffer(payload, dtype).reshape(self.shape) if payload else numpy.zeros(self.shape, dtype)
        except ValueError:
            raise Malformed(
                f"{len(payload)} bytes are no {dtype} of shape {self.shape}; the array was of another type."
            ) from None


class ArrayRef(Update, frozen=True, kw_only=True, dict=True):
    """Cells that were written into files. `shape` is that of the whole array, `patch_*` the region that is new (None: all)."""

    shape: tuple[int, ...]
    patch_offset: tuple[int, ...] | None
    patch_shape: tuple[int, ...] | None
    data_source: dict[str, Any]
    data_type: DataType
    fetcher: Fetcher

    async def fetch(self) -> numpy.ndarray[Any, Any]:
        """The new cells, from the server. Safe to cancel; raises what the server answers (`NotFound`, `Unavailable`, …)."""
        return self._array(await self.fetcher.get(self.path, self._slice()))

    def fetch_sync(self) -> numpy.ndarray[Any, Any]:
        """As `fetch`, blocking."""
        return self._array(self.fetcher.get_sync(self.path, self._slice()))

    def _slice(self) -> str:
        if self.patch_offset is None or self.patch_shape is None:
            return ",".join(f":{n}" for n in self.shape)
        return ",".join(f"{at}:{at + n}" for at, n in zip(self.patch_offset, self.patch_shape, strict=False))

    def _array(self, body: bytes) -> numpy.ndarray[Any, Any]:
        import numpy

        shape = self.shape if self.patch_shape is None else self.patch_shape
        try:
            return numpy.frombuffer(body, to_numpy(self.data_type)).reshape(shape)
        except ValueError:
            raise Malformed(f"The server gave {len(body)} bytes for a region of shape {shape}; the array has changed.") from None


class TableData(_Payload, frozen=True, kw_only=True, dict=True):
    """Rows of a table. `append`: they follow those that are there; otherwise they replace the `partition`, or (None) all."""

    append: bool
    partition: int | None

    @cached_property
    def table(self) -> pyarrow.Table:
        """The rows."""
        from ..wire.tables import read_table

        return read_table(self._bytes())


class RaggedData(_Payload, frozen=True, kw_only=True, dict=True):
    """Rows of unequal lengths. `shape` is None where lengths differ; `mimetype` says how `payload` is packed."""

    mimetype: str
    shape: tuple[int | None, ...]
    offset: tuple[int, ...] | None
    block: tuple[int, ...] | None

    @cached_property
    def array(self) -> awkward.Array:
        """The rows, as the library awkward has them."""
        from ..wire.ragged import loaded  # heavy, and few want it

        return loaded(self._bytes())


class SparseData(_Payload, frozen=True, kw_only=True, dict=True):
    """Elements of a sparse array: those of a `block`, counted from its corner, or (None) of the whole array. Others are zero."""

    shape: tuple[int, ...]
    offset: tuple[int, ...] | None
    block: tuple[int, ...] | None

    @cached_property
    def coordinates(self) -> numpy.ndarray[Any, Any]:
        """Where they are: a row for each axis."""
        import numpy

        return numpy.stack(self._columns[:-1]) if len(self._columns) > 1 else numpy.empty((0, len(self._columns[-1])), "i8")

    @property
    def elements(self) -> numpy.ndarray[Any, Any]:
        """What they are."""
        return self._columns[-1]

    @cached_property
    def array(self) -> numpy.ndarray[Any, Any]:
        """The same with its zeros, of this `shape`."""
        import numpy

        dense = numpy.zeros(self.shape, self.elements.dtype)
        dense[tuple(self.coordinates)] = self.elements
        return dense

    @cached_property
    def _columns(self) -> list[numpy.ndarray[Any, Any]]:
        from ..wire.sparse import sparse_columns

        return sparse_columns(self._bytes())


class ChildCreated(Update, frozen=True, kw_only=True, dict=True):
    """A node was created in this container."""

    key: str
    family: str
    specs: tuple[Spec, ...]
    metadata: dict[str, Any]
    data_sources: tuple[dict[str, Any], ...]

    @property
    def child(self) -> tuple[str, ...]:
        """Path of the new node."""
        return (*self.path, self.key)


class ChildUpdated(Update, frozen=True, kw_only=True, dict=True):
    """What is said about a child has changed; `metadata` is all of it. `revision` is None if none was kept."""

    key: str
    specs: tuple[Spec, ...]
    metadata: dict[str, Any]
    revision: int | None

    @property
    def child(self) -> tuple[str, ...]:
        """Path of the node."""
        return (*self.path, self.key)


class Appeared(Event, frozen=True, kw_only=True, dict=True):
    """A node of a subtree, before its first update. `head`: the last sequence that it had then."""

    key: str
    family: str
    specs: tuple[Spec, ...]
    metadata: dict[str, Any]
    structure: Any
    head: int


class Gap(Event, frozen=True, kw_only=True, dict=True):
    """Sequences from `first` to `last` do not come, none if ``first > last``; None: unknown.

    `truncated`: they have left the log. `lost`: they were acknowledged and are lost. `epoch`: the log was lost and restored
    as far as possible, or the node was made anew; `head` is then the last sequence that the node has in it, if the server says
    so: what was received above it is no longer in the log. `unannounced`: no message had these numbers, and
    the server did not say why (an end of stream that was written past leaves one). `unknown`: a connection broke before the first
    update, and a server that does not tell positions may have written meanwhile.
    """

    first: int | None
    last: int | None
    reason: str
    head: int | None = None


class Live(Event, frozen=True, kw_only=True, dict=True):
    """Everything that was there has come; from now on it comes as it happens."""


class Reconnected(Event, frozen=True, kw_only=True, dict=True):
    """The connection was lost and is there again; nothing was missed unless a `Gap` follows. `seconds`: how long it was away."""

    attempts: int
    seconds: float
    why: str


class Ended(Event, frozen=True, kw_only=True, dict=True):
    """Nothing more will come of this node: its producer said so, or it was deleted."""

    reason: str
    is_deleted: bool = False


class Failed(Event, frozen=True, kw_only=True, dict=True):
    """A subscription that was there is over, because of `error`."""

    error: TiledStreamError


class Other(Update, frozen=True, kw_only=True, dict=True):
    """A message that this client does not know, as it came."""

    type: str
    message: dict[str, Any]
