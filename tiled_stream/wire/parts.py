"""Bodies of the families that are kept in parts: checked when they come, split into files when they are persisted.

One place for all three, so that the writer, the store and the reader need not know which family it is. What must stay true:
`split` never refuses what `decode_part` returned.
"""

from __future__ import annotations

import msgspec

from ..domain.commands import AppendPart, WritePart
from ..domain.errors import Malformed
from ..domain.events import PartWritten
from ..domain.parts import appended, check_part_structure, part_written, ragged_block, row_chunks
from ..domain.structures import AwkwardStructure, PartStructure, RaggedStructure, SparseStructure

__all__ = ["Decoded", "check_part", "decode_part", "part_name", "split"]


class Decoded(msgspec.Struct, frozen=True):
    """The event that a body makes, and the body as it goes into the log."""

    event: PartWritten
    body: bytes


def check_part(structure: PartStructure) -> None:
    """`Malformed` unless such data can be held and read."""
    check_part_structure(structure)
    if isinstance(structure, AwkwardStructure):
        from .awkward import check_form  # heavy, and few want it

        check_form(structure)


def decode_part(structure: PartStructure, command: WritePart | AppendPart) -> Decoded:
    """Blocks: for a thread. `Malformed` for a body that does not fit, `Conflict` for an append that does not."""
    if isinstance(structure, RaggedStructure):
        return _ragged(structure, command)
    if isinstance(command, AppendPart):
        return Decoded(appended(structure, command, size=0), b"")  # refuses: only ragged arrays grow
    if isinstance(structure, AwkwardStructure):
        from .awkward import decode_awkward

        event = part_written(structure, command)
        return Decoded(event, decode_awkward(command.body, structure))
    from .sparse import decode_sparse

    event = part_written(structure, command)
    return Decoded(event, decode_sparse(command.body, structure, command.block))


def part_name(structure: PartStructure, block: tuple[int, ...]) -> str:
    """The file of one chunk."""
    kind = "parquet" if isinstance(structure, SparseStructure) else "zip"
    return f"block-{'.'.join(map(str, block))}.{kind}"


def split(event: PartWritten, body: bytes) -> dict[str, bytes]:
    """The files that a record writes: those of its chunk, or of all of them. Blocks: for a thread."""
    structure = event.structure
    if isinstance(structure, AwkwardStructure):
        from .zipped import members_of

        return members_of(body)
    if isinstance(structure, RaggedStructure):
        return _ragged_parts(structure, event, body)
    return _sparse_parts(structure, event, body)


def _ragged(structure: RaggedStructure, command: WritePart | AppendPart) -> Decoded:
    from .ragged import decode_ragged

    if isinstance(command, AppendPart):
        event = appended(structure, command, size=0)  # refuses before the work is done
        rows = decode_ragged(command.body, structure)
        if rows.rows != command.length:
            raise Malformed(f"The body has {rows.rows} rows; 'shape' says {command.length}.")
        return Decoded(appended(structure, command, size=rows.size), rows.body)
    rows = decode_ragged(command.body, structure)
    event = part_written(structure, command, size=rows.size)
    if rows.rows != event.shape[0]:
        raise Malformed(f"The body has {rows.rows} rows; the structure says {event.shape[0]}.")
    return Decoded(event, rows.body)


def _ragged_parts(structure: RaggedStructure, event: PartWritten, body: bytes) -> dict[str, bytes]:
    if event.block is not None:
        return {part_name(structure, event.block): body}
    count = len(row_chunks(structure))
    if count == 1:
        return {part_name(structure, (0,)): body}
    from .ragged import encode_ragged, loaded
    from .zipped import ZIP

    array = loaded(body)
    parts = {}
    for index in range(count):
        first, rows = ragged_block(structure, (index,))
        parts[part_name(structure, (index,))] = encode_ragged(array[first : first + rows], ZIP)
    return parts


def _sparse_parts(structure: SparseStructure, event: PartWritten, body: bytes) -> dict[str, bytes]:
    from .sparse import blocks_of, encode_block, sparse_columns

    columns = sparse_columns(body)
    blocks = [(event.block, columns)] if event.block is not None else blocks_of(columns, structure)
    return {part_name(structure, block): encode_block(share, structure) for block, share in blocks}
