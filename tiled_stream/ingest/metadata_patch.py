"""Edits of metadata as clients send them: RFC 6902 (JSON Patch) and RFC 7386 (merge patch).

Nothing is changed in place: the state before stays what the log says it was (I2).
"""

from __future__ import annotations

from typing import Any

import jsonpatch
import msgspec

from ..domain.commands import PatchMetadata, ReplaceMetadata
from ..domain.decide import check_specs
from ..domain.errors import Conflict, Malformed
from ..domain.events import ChildMetadataUpdated
from ..domain.nodes import Node, Spec
from ..wire.client_json import check_depth

__all__ = ["edited", "patched"]


def patched(node: Node, command: PatchMetadata) -> tuple[dict[str, Any], tuple[Spec, ...]]:
    """Metadata and specs of `node` after the patch.

    `Malformed` if the patch makes no sense or its result is none; `Conflict` if a `test` operation fails. A patch of the access
    tags must make sense too, though without an access policy they stay as they are.
    """
    merge = command.kind == "merge-patch"
    metadata: Any = node.metadata
    if command.metadata is not None:
        metadata = _merged(metadata, command.metadata) if merge else _json_patched(metadata, command.metadata, "metadata")
    if not isinstance(metadata, dict):
        raise Malformed("The metadata must still be an object after the patch.")
    check_depth(metadata, "The metadata")
    specs = node.specs
    if command.specs is not None:
        plain = [msgspec.to_builtins(s) for s in node.specs]
        specs = _specs(command.specs if merge else _json_patched(plain, command.specs, "specs"))
    if command.access_tags is not None:
        _check_tags(command.access_tags if merge else _json_patched([*node.access_tags], command.access_tags, "access_tags"))
    return metadata, specs


def _json_patched(document: Any, operations: Any, name: str) -> Any:
    if not isinstance(operations, list):
        raise Malformed(f"A JSON patch of {name} is a list of operations, not {type(operations).__name__}.")
    try:
        return jsonpatch.apply_patch(document, operations, in_place=False)
    except jsonpatch.JsonPatchTestFailed as error:
        raise Conflict(f"A 'test' operation of the patch of {name} failed: {error}") from None
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException, TypeError, KeyError, ValueError) as error:
        raise Malformed(f"The JSON patch of {name} does not apply: {error}") from None


def _merged(target: Any, patch: Any) -> Any:
    """RFC 7386, section 2."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merged(result.get(key), value)
    return result


def _specs(value: Any) -> tuple[Spec, ...]:
    try:
        specs = msgspec.convert(value, tuple[Spec, ...])
    except msgspec.ValidationError as error:
        raise Malformed(f"The specs after the patch are not a list of {{name, version}}: {error}") from None
    check_specs(specs)
    return specs


def _check_tags(value: Any) -> None:
    try:
        msgspec.convert(value, tuple[str, ...])
    except msgspec.ValidationError as error:
        raise Malformed(f"The access tags after the patch are not a list of strings: {error}") from None


def edited(node: Node, command: ReplaceMetadata | PatchMetadata) -> ChildMetadataUpdated:
    """The event that an edit makes. `Malformed` or `Conflict` if it cannot be made."""
    if isinstance(command, PatchMetadata):
        metadata, specs = patched(node, command)
    else:
        metadata = node.metadata if command.metadata is None else command.metadata
        specs = node.specs if command.specs is None else command.specs
        check_specs(specs)
    return ChildMetadataUpdated(
        key=node.key,
        id=node.id,
        metadata=metadata,
        specs=specs,
        access_tags=node.access_tags,  # tags mean something only under an access policy; without one they stay as they are
        revision=None if command.drop_revision else node.revision + 1,
    )
