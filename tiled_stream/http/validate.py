"""`/custom/validate`: is a stored Bluesky run whole, and are its files what was declared? Answered here, natively.

With `fix` a wrong declaration is replaced by what the files say, as an event like any other; with `read` the ends of every array
and every table are read. The first fault that is not to be ignored makes the run invalid; what was ignored is told as notes.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
import orjson
from litestar import Request, get, post
from litestar.response.base import ASGIResponse

from ..domain.commands import NewDataSource, UpdateDataSource
from ..domain.corrections import Mismatch, chunks_of_files, corrected
from ..domain.errors import Malformed, TiledStreamError, Unsatisfiable
from ..domain.nodes import DataSource
from ..domain.slices import Along, Selection
from ..domain.structures import ArrayStructure
from ..nodes.repository import Located
from ..wire.negotiate import BLUESKY_RUN
from .children import children
from .params import Query, keys_of
from .services import Edge, edge_of

__all__ = ["ROUTES"]

Connection = Request[Any, Any, Any]

_SCOPES = ("read:data", "read:metadata", "write:metadata")
_MAX_PATTERNS, _MAX_PATTERN = 50, 200
#: A group that is repeated can take a pattern for ever.
_REPEATED_GROUP = re.compile(r"\)\s*[*+{]|\\[1-9]|\(\?P=")


class _Invalid(Exception):
    """The run has a fault."""


@get("/validate/{path:path}", opt={"scopes": _SCOPES})
async def get_validate(request: Connection) -> ASGIResponse:
    """Check a run."""
    return await _validate(request, [])


@post("/validate/{path:path}", opt={"scopes": _SCOPES}, status_code=200)
async def post_validate(request: Connection) -> ASGIResponse:
    """Check a run; the body may hold regular expressions of errors to ignore (`ignore_errors`)."""
    return await _validate(request, _ignored(await request.body()))


async def _validate(request: Connection, ignored: list[re.Pattern[str]]) -> ASGIResponse:
    edge, query = edge_of(request), Query(request.scope)
    check = _Check(edge, fix=query.flag("fix", False), read=query.flag("read", False), ignored=ignored)
    at = await edge.browse.resolve(keys_of(request))
    if not any(s.name == BLUESKY_RUN and (s.version or "").startswith("3.") for s in at.node.specs):
        raise Unsatisfiable(f"{'/'.join(at.path)!r} is not a {BLUESKY_RUN} of version 3; only those can be validated.")
    try:
        for stream in await children(edge, at):
            if stream.node.family == "container":
                await check.stream(stream)
        content: dict[str, Any] = {"valid": True, "notes": check.notes}
    except _Invalid as fault:
        content = {"valid": False, "notes": [*check.notes, str(fault)]}
    return ASGIResponse(body=orjson.dumps(content), media_type="application/json")


class _Check:
    """One validation, and what it has to say."""

    def __init__(self, edge: Edge, *, fix: bool, read: bool, ignored: list[re.Pattern[str]]) -> None:
        self._edge = edge
        self._fix = fix
        self._read = read
        self._ignored = ignored
        self.notes: list[str] = []

    async def stream(self, stream: Located) -> None:
        """Everything in a stream. `_Invalid` at the first fault."""
        rows: dict[str, int] = {}
        for child in await children(self._edge, stream):
            name = "/".join(child.path[-2:])
            source = child.node.data_sources[0] if child.node.data_sources else None
            if source is None:
                continue
            if source.management == "external":
                known = await self._files(child, source, name)
                if known is None:
                    continue  # that was told; reading would only say it again
                child = known
            elif self._read and source.structure_family in ("array", "table"):
                rows[name] = await self._rows(child)
            if self._read:
                await self._ends(child, name)
        if len(set(rows.values())) > 1:  # a writer that died leaves rows in one node that another has not
            self._fault(f"{stream.path[-1]}: the numbers of rows differ: {rows}")

    async def _files(self, at: Located, source: DataSource, name: str) -> Located | None:
        """Compare with the files, and correct what is declared. None after a fault that is ignored."""
        files = self._edge.reader.files
        assets = []
        for asset in source.assets:
            try:
                assets.append(msgspec.structs.replace(asset, size=await files.size(asset)))
            except TiledStreamError as error:
                self._fault(f"Asset validation of '{name}' failed: Could not determine size of asset {asset.data_uri}: {error}")
                return None
        structure, properties = source.structure, source.properties
        notes: list[str] = []
        if isinstance(structure, ArrayStructure):
            frames = at.node.metadata.get("frame_per_point")
            try:
                data_type, shape = await files.actual(at)
                declared = structure
                structure, notes = corrected(
                    declared, data_type, shape, frames=frames if isinstance(frames, int) else None, fix=self._fix
                )
                if chunks := chunks_of_files(declared, shape, structure):
                    properties = properties | {"chunks": [list(parts) for parts in chunks]}
            except Mismatch as error:
                raise _Invalid(f"Structure validation of '{name}' failed: {error}") from None
            except TiledStreamError as error:
                self._fault(f"Unexpected error during validation of '{name}': {error}")
                return None
        self.notes += [f"Structure validation of '{name}': {note}" for note in notes]
        if self._fix and (notes or tuple(assets) != source.assets):
            new = NewDataSource(
                structure_family=source.structure_family,
                structure=structure,
                mimetype=source.mimetype,
                parameters=source.parameters,
                properties=properties,
                assets=tuple(assets),
                management=source.management,
                id=source.id,
            )
            await self._edge.writer.submit(at.path, UpdateDataSource(new))
            return await self._edge.browse.resolve(at.path)
        return at

    async def _rows(self, at: Located) -> int:
        structure = at.node.structure
        if isinstance(structure, ArrayStructure):
            return structure.shape[0] if structure.shape else 1
        return int((await self._edge.reader.table(at)).num_rows)

    async def _ends(self, at: Located, name: str) -> None:
        """Can it be read?"""
        structure = at.node.structure
        try:
            if isinstance(structure, ArrayStructure) and 0 not in structure.shape:
                for end in (0, -1):
                    axes = tuple(Along(end % length, 1, 1, drop=True) for length in structure.shape)
                    await self._edge.reader.array(at, structure, Selection(axes))
            elif at.node.family == "table":
                await self._edge.reader.table(at)
        except TiledStreamError as error:
            self._fault(f"Error while reading '{name}': {error}")

    def _fault(self, message: str) -> None:
        if not any(pattern.search(message) for pattern in self._ignored):
            raise _Invalid(message)
        self.notes.append(f"Ignored: {message}")


def _ignored(body: bytes) -> list[re.Pattern[str]]:
    try:
        value = orjson.loads(body) if body else {}
    except orjson.JSONDecodeError as error:
        raise Malformed(f"The body is not JSON: {error}") from None
    given = value.get("ignore_errors") if isinstance(value, dict) else value
    if given is None:
        return []
    if not isinstance(given, list) or len(given) > _MAX_PATTERNS or not all(isinstance(p, str) for p in given):
        raise Malformed(f"'ignore_errors' must be a list of at most {_MAX_PATTERNS} regular expressions, or null.")
    found = []
    for pattern in given:
        if len(pattern) > _MAX_PATTERN or _REPEATED_GROUP.search(pattern):
            raise Malformed(
                f"The pattern {pattern[:80]!r} is too long, or repeats a group or refers to one; write a simpler one."
            )
        try:
            found.append(re.compile(pattern))
        except re.error as error:
            raise Malformed(f"{pattern!r} is no regular expression: {error}") from None
    return found


ROUTES = [get_validate, post_validate]
