"""What is served where: from the setting `mounts` to mounts whose containers exist.

Must stay true: a server does not start on a mount that leads nowhere, unless it may make the containers.
"""

from __future__ import annotations

import contextlib

import msgspec

from ..domain.commands import CreateChild
from ..domain.errors import Conflict, NotFound
from ..ingest.writer import Writer
from ..nodes.mounts import Mounts
from ..nodes.repository import Repository
from .settings import Settings, SettingsError, Tree, mounts_of

__all__ = ["mount"]


async def mount(settings: Settings, repository: Repository, writer: Writer) -> None:
    """Serve what the settings say where they say it. `SettingsError` for a container that is not there."""
    trees = [msgspec.convert(entry, Tree) for entry in settings.mounts]
    if not trees:
        return
    mounts = mounts_of(settings.mounts)
    for tree, place in zip(trees, mounts, strict=True):
        await _find(settings, repository, writer, tree=tree, path=place.node)
    repository.mounts = Mounts(mounts)


async def _find(settings: Settings, repository: Repository, writer: Writer, *, tree: Tree, path: tuple[str, ...]) -> None:
    for depth in range(1, len(path) + 1):
        try:
            at = await repository.resolve(path[:depth])
        except NotFound:
            if not settings.create_mount_nodes_if_not_exist:
                raise SettingsError(
                    f"mounts: {tree.node} was not found in the catalog; make it, or set 'create_mount_nodes_if_not_exist'."
                ) from None
            is_last = depth == len(path)
            child = CreateChild(path[depth - 1], "container", tree.metadata if is_last else {}, tree.specs if is_last else ())
            with contextlib.suppress(Conflict):  # another server made it meanwhile
                await writer.submit(path[: depth - 1], child)
            continue
        if at.node.family != "container" or at.inside or at.column is not None:
            raise SettingsError(f"mounts: {tree.node} is no container of the catalog; only those can be mounted.")
