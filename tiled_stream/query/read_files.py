"""Data in registered files: read in threads of their own, so that a slow file server holds up neither the loop nor storage.

Memory is bounded: at most `threads` reads at a time, each of at most `limit` bytes (twice that, while parts are joined). What a
reader misses in a file is a verdict only once the file had time to arrive: until then it is `Unavailable`, and a client repeats.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from ..domain.errors import LogError, NotFound, Unavailable
from ..domain.events import StreamEnded
from ..domain.nodes import Asset
from ..domain.slices import Selection
from ..domain.structures import ArrayStructure, DataType, Structure, TableStructure
from ..files.actual import actual_array
from ..files.formats import check_mimetype, open_array, open_table, open_tree, plain
from ..files.port import Damaged, Missing, Reader, Source
from ..files.trees import FileTree
from ..files.wall import Wall
from ..log.port import Log
from ..nodes.repository import Located
from ..storage.engine_thread import EngineThread
from ..wire.tables import schema_of
from .read_assets import Assets

if TYPE_CHECKING:
    import numpy
    import pyarrow

__all__ = ["FileData"]

T = TypeVar("T")

#: Seconds after the last word about a node in which its files may still be on their way: file servers are slow to tell.
ARRIVAL = 60.0
#: Arguments of a reader that name its files.
_PARAMETERS = ("data_uri", "data_uris")


class FileData:
    """Read only. `directories` are those that may be read from; `limit` is in bytes; `now`: seconds since the epoch.

    `is_strict`: data outside of the directories cannot even be registered. `readers`: of an operator, by mimetype.
    """

    def __init__(
        self,
        directories: Sequence[str],
        *,
        log: Log,
        now: Callable[[], float],
        limit: int,
        is_strict: bool = False,
        readers: Mapping[str, Reader] | None = None,
        threads: int = 4,
    ) -> None:
        self._wall = Wall(directories)
        self._log = log
        self._now = now
        self._limit = limit
        self._is_strict = is_strict
        self._readers = {plain(mimetype): reader for mimetype, reader in (readers or {}).items()}
        self._threads = EngineThread("file reader", threads=threads)
        self.assets = Assets(self._wall, self._threads)

    async def close(self) -> None:
        """Finish what was begun and end the threads. Idempotent."""
        await self._threads.close()

    async def check(self, mimetype: str | None, assets: Sequence[Asset]) -> None:
        """Of what is to be registered. `UnsupportedType` for a type that nothing reads, `Forbidden` for a file outside."""
        if mimetype is not None:
            check_mimetype(mimetype, self._readers)
        if self._is_strict and assets:
            await self._threads.run(self._check_places, assets)

    async def array(self, at: Located, structure: ArrayStructure, selection: Selection) -> numpy.ndarray:
        """See `ArrayReader`; `NotSupported` if nothing here reads this type."""
        source = self._source(at, structure)
        return await self._read(at, lambda: open_array(source).read(selection))

    async def actual(self, at: Located) -> tuple[DataType, tuple[int, ...]]:
        """Element type and shape that the files of an array have, whatever is declared. Errors as of an array."""
        return await self._threads.run(actual_array, self._source(at, at.node.structure))

    async def size(self, asset: Asset) -> int:
        """Bytes of a file, or of all files in a directory. `Missing` if it is not there, `Forbidden` outside of the wall."""
        return await self._threads.run(self._size, asset)

    async def table(
        self, at: Located, structure: TableStructure, *, columns: Sequence[str] | None, partition: int | None
    ) -> pyarrow.Table:
        """See `TableReader`; `NotSupported` if nothing here reads this type."""
        source = self._source(at, structure)
        return await self._read(at, lambda: open_table(source).read(columns, partition))

    async def tree(self, at: Located, work: Callable[[FileTree], T]) -> T:
        """What `work` finds in the file of a container; `NotSupported` if nothing here reads this type."""
        source = self._source(at, None)
        return await self._read(at, lambda: work(open_tree(source)))

    async def _read(self, at: Located, work: Callable[[], T]) -> T:
        try:
            return await self._threads.run(work)
        except (Missing, Damaged) as error:
            if await self._may_arrive(at):
                raise Unavailable(f"{error} It may be on its way; try again.", retry_after=1.0) from None
            raise

    async def _may_arrive(self, at: Located) -> bool:
        """Is this node so new, or was its data source changed so lately, that its files may not be there yet?"""
        last = at.node.time_created
        try:
            for record in await self._log.read(at.node.id, max(0, at.head - 1), limit=1, headers=True):
                if isinstance(record.event, StreamEnded):
                    return False
                last = record.time
        except (LogError, NotFound):
            pass  # persisted long ago, or deleted
        return self._now() - last < ARRIVAL

    def _source(self, at: Located, structure: Structure | None) -> Source:
        source = at.node.data_sources[0]
        return Source(
            structure=structure,
            mimetype=source.mimetype,
            uris=_uris(source.assets),
            wall=self._wall,
            now=self._now(),
            limit=self._limit,
            schema=schema_of(structure) if isinstance(structure, TableStructure) else None,
            parameters=source.parameters,
            named=_by_argument(source.assets),
            reader=self._readers.get(plain(source.mimetype)),
            inside=at.inside,
        )

    def _size(self, asset: Asset) -> int:
        path = self._wall.path_of(asset.data_uri)
        try:
            if path.is_dir():
                return sum(inner.stat().st_size for inner in path.rglob("*") if inner.is_file())
            return path.stat().st_size
        except OSError as error:
            # Who ignores an error names it as Python does.
            raise Missing(f"{type(error).__name__}: {error.strerror}: {path.name!r}") from None

    def _check_places(self, assets: Sequence[Asset]) -> None:
        for asset in assets:
            self._wall.path_of(asset.data_uri)


def _uris(assets: Sequence[Asset]) -> tuple[str, ...]:
    """In order of their numbers, up to the first that is missing; a place that was told twice is where the last one said.

    Assets without a parameter are what the files refer to, unless there are no others.
    """
    named = [asset for asset in assets if asset.parameter in _PARAMETERS]
    places = {a.num or 0: a.data_uri for a in named or [a for a in assets if a.parameter is None] or assets[:1]}
    first = min(places, default=0)
    return tuple(places[number] for number in range(first, first + len(places)) if number in places)


def _by_argument(assets: Sequence[Asset]) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[Asset]] = {}
    for asset in assets:
        if asset.parameter is not None:
            found.setdefault(asset.parameter, []).append(asset)
    return {name: tuple(a.data_uri for a in sorted(of, key=lambda a: a.num or 0)) for name, of in found.items()}
