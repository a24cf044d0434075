"""A directory as a tree that is served: its files registered as a client would register them, and looked at again.

What must stay true: nothing is written to the directory. A file that cannot be read is left out with the reason and tried again
when it has changed. What changes is told in the logs of the nodes, so that subscribers see it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from ..domain.commands import CreateChild, DeleteNode, NewDataSource, UpdateDataSource
from ..domain.errors import NotFound, Refused, TiledStreamError, Unavailable, UnsupportedType
from ..domain.nodes import Asset
from ..domain.structures import ArrayStructure
from ..files.formats import check_mimetype, plain
from ..files.inferred import inferred
from ..files.port import Entry, Reader, Source
from ..files.walk import Item, Rules, walk
from ..files.wall import Wall
from ..ingest.writer import Writer
from ..wire.tables import structure_of
from .assembly import Assembly
from .serving import Beside

__all__ = ["Mirror", "Progress", "beside"]

logger = logging.getLogger(__name__)

#: Seconds between two looks at a directory; and how many times longer than a look takes.
_PAUSE = 1.0
_SHARE = 10
#: Types whose readers take one file; all others take a list.
_SINGLE = ("image/", "application/x-npy", "application/x-zarr", "application/x-netcdf", "application/vnd.openxml")
#: Called with how many of how many files were looked at.
Progress = Callable[[int, int], None]


class Mirror:
    """A directory and its nodes. Used by one task."""

    def __init__(
        self, root: Path, rules: Rules, *, writer: Writer, limit: int, readers: Mapping[str, Reader] | None = None
    ) -> None:
        self._root = root
        self._rules = rules
        self._writer = writer
        self._limit = limit
        self._readers = {plain(mimetype): reader for mimetype, reader in (readers or {}).items()}
        self._wall = Wall([root])
        # What stands in the tree: by its keys, as it was found, with its data source as it was told last (None: a container).
        self._known: dict[tuple[str, ...], tuple[Item, NewDataSource | None]] = {}
        # What was left out, as it was then: not tried again before it has changed.
        self._left_out: dict[tuple[str, ...], int] = {}
        self._told: set[tuple[Path, str]] = set()

    async def update(self, progress: Progress | None = None) -> int:
        """Look at the directory and bring the tree up to it. How many nodes were created, changed or removed."""
        found = await asyncio.to_thread(walk, self._root, self._rules)
        self._tell(found.left_out)
        wanted = {item.keys: item for item in found.items}
        changes = await self._remove(wanted)
        for number, item in enumerate(found.items):
            if progress is not None:
                progress(number, len(found.items))
            known = self._known.get(item.keys)
            if known is not None and known[0] == item:
                continue
            if self._left_out.get(item.keys) != item.version:
                changes += await self._take(item)
        if progress is not None:
            progress(len(found.items), len(found.items))
        return changes

    @property
    def figures(self) -> tuple[int, int]:
        """How many nodes there are, and how many files and directories were left out."""
        return len(self._known), len(self._left_out) + len(self._told)

    async def _remove(self, wanted: dict[tuple[str, ...], Item]) -> int:
        """Those that are gone, and those that are something else now."""
        gone = [keys for keys, (item, _) in self._known.items() if keys not in wanted or wanted[keys].mimetype != item.mimetype]
        for keys in sorted(gone, key=len):
            if keys in self._known:  # else it went with what it lay in
                await self._delete(keys)
        return len(gone)

    async def _delete(self, keys: tuple[str, ...]) -> None:
        with suppress(NotFound):
            await self._writer.submit(keys, DeleteNode(recursive=True))
        for below in [k for k in self._known if k[: len(keys)] == keys]:
            del self._known[below]

    async def _take(self, item: Item) -> bool:
        """Register it, or tell that its files changed."""
        try:
            if item.mimetype is not None:
                check_mimetype(item.mimetype, self._readers)
            entry = await asyncio.to_thread(self._inferred, item) if item.mimetype is not None else None
            new = None if entry is None else self._data_source(item, entry)
            if item.keys in self._known:
                await self._changed(item, new, entry)
            else:
                await self._create(item, new, entry)
        except Unavailable as error:  # somebody writes it: next time
            logger.info("%s", error)
            return False
        except UnsupportedType:
            self._left_out[item.keys] = item.version
            logger.debug("Nothing reads %s (%s)", item.paths[0], item.mimetype)
            return False
        except (TiledStreamError, ValueError) as error:
            self._left_out[item.keys] = item.version
            self._tell(((item.paths[0] if item.paths else self._root.joinpath(*item.keys), str(error)),))
            return False
        return True

    async def _create(self, item: Item, new: NewDataSource | None, entry: Entry | None) -> None:
        command = CreateChild(
            key=item.keys[-1],
            family="container" if entry is None else entry.family,
            metadata={} if entry is None else entry.metadata,
            specs=() if entry is None else entry.specs,
            data_sources=() if new is None else (new,),
            registered=True,
        )
        accepted = await self._writer.submit(item.keys[:-1], command)
        if new is not None and accepted.node is not None:
            new = msgspec.structs.replace(new, id=accepted.node.data_sources[0].id)
        self._known[item.keys] = item, new

    async def _changed(self, item: Item, new: NewDataSource | None, entry: Entry | None) -> None:
        """An array goes on as the node that it is; of others the tree tells by itself, or a new node does."""
        old = self._known[item.keys][1]
        if old is None or new is None:
            return
        goes_on = isinstance(new.structure, ArrayStructure) and old.structure_family == "array"
        if new.structure_family == "container" == old.structure_family or (new.structure == old.structure and not goes_on):
            self._known[item.keys] = item, old
        elif goes_on and set(old.assets) <= set(new.assets):
            new = msgspec.structs.replace(new, id=old.id)
            await self._writer.submit(item.keys, UpdateDataSource(new))
            self._known[item.keys] = item, new
        else:
            await self._delete(item.keys)
            await self._create(item, new, entry)

    def _inferred(self, item: Item) -> Entry:
        assert item.mimetype is not None
        uris = tuple(map(_uri, item.paths))
        return inferred(
            Source(
                structure=None,
                mimetype=item.mimetype,
                uris=uris,
                wall=self._wall,
                now=time.time(),
                limit=self._limit,
                reader=self._readers.get(plain(item.mimetype)),
            )
        )

    def _data_source(self, item: Item, entry: Entry) -> NewDataSource:
        assert item.mimetype is not None
        is_single = item.mimetype.startswith(_SINGLE)
        assets = tuple(
            Asset(_uri(path), item.is_directory, "data_uri" if is_single else "data_uris", None if is_single else number)
            for number, path in enumerate(item.paths)
        )
        structure = entry.structure if entry.schema is None else structure_of(entry.schema)
        return NewDataSource(
            structure_family=entry.family, structure=structure, mimetype=item.mimetype, assets=assets, management="external"
        )

    def _tell(self, left_out: tuple[tuple[Path, str], ...]) -> None:
        """Once."""
        for path, why in left_out:
            if (path, why) not in self._told:
                self._told.add((path, why))
                logger.warning("Left out: %s: %s", path, why)


def beside(
    root: Path,
    rules: Rules,
    *,
    watches: bool,
    limit: int,
    progress: Progress | None = None,
    readers: Mapping[str, Reader] | None = None,
) -> Beside:
    """Registers what is in the directory before the server serves; then, if it `watches`, follows what changes. Read only."""

    @asynccontextmanager
    async def around(assembly: Assembly, stop: asyncio.Event) -> AsyncIterator[Any]:
        mirror = Mirror(root, rules, writer=assembly.services.writer, limit=limit, readers=readers)
        stopping = asyncio.create_task(stop.wait(), name="stop of the registration")
        first = asyncio.create_task(mirror.update(progress), name="registration of a directory")
        await asyncio.wait({first, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not first.done():
            first.cancel()
            await asyncio.wait({first})
        elif first.exception() is not None:
            raise first.exception() or AssertionError
        logger.info("%d nodes are registered, %d files were left out", *mirror.figures)
        watching = asyncio.create_task(_watch(mirror), name="watch of a directory") if watches and first.done() else None
        try:
            yield ReadOnly(assembly.app)
        finally:
            for task in (stopping, watching):
                if task is not None:
                    task.cancel()
                    await asyncio.wait({task})

    return around


async def _watch(mirror: Mirror) -> None:
    """Until it is cancelled. A directory that cannot be read for a while is no end."""
    took = 0.0
    while True:
        await asyncio.sleep(max(_PAUSE, _SHARE * took))
        begin = time.perf_counter()
        try:
            changes = await mirror.update()
        except (OSError, Refused) as error:
            logger.warning("The directory could not be looked at: %s", error)
            continue
        took = time.perf_counter() - begin
        if changes:
            logger.info("%d nodes were created, changed or removed", changes)


class ReadOnly:
    """The application without what writes; the tree is what the directory is."""

    _WRITES = ("PUT", "PATCH", "DELETE")
    _CREATES = ("/metadata", "/register")

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """See ASGI."""
        if scope["type"] == "http" and self._is_write(scope["method"], scope["path"]):
            body = b'{"detail":"This server serves a directory of files as it is; nothing can be written to it."}'
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": 405, "headers": headers})
            await send({"type": "http.response.body", "body": body})
            return
        await self._app(scope, receive, send)

    def _is_write(self, method: str, path: str) -> bool:
        return method in self._WRITES or (method == "POST" and any(part in path for part in self._CREATES))


def _uri(path: Path) -> str:
    return "file://localhost" + quote(str(path))
