"""Catalog, log and storages of one deployment know each other: checked at start, before anything is read or written.

The catalog holds the deployment's id and, by name, the incarnation of each storage that it counts on. What must stay true: a
directory of arrays that is not mounted is never taken for an empty one, and a database that is new is compared with the
catalog node by node.
"""

from __future__ import annotations

import logging

from ..catalog.port import Catalog
from ..domain.errors import StorageMissing
from ..storage.port import Identified

__all__ = ["ARRAYS", "TABLES", "Mismatches", "bind_storage"]

logger = logging.getLogger(__name__)

#: Names under which the catalog remembers storages.
ARRAYS, TABLES = "arrays", "tables"


class Mismatches:
    """Counts storages that were not what the catalog expected, at start."""

    def __init__(self) -> None:
        self.count = 0


async def bind_storage(catalog: Catalog, name: str, storage: Identified, deployment: str, mismatches: Mismatches) -> bool:
    """Bind one storage to the deployment. True if it is another one than the catalog counted on, begun anew or restored.

    A directory that is missing is reported and not refused: the server starts, takes writes into the log, answers 503 for
    its data, and goes on when it is mounted. A database of another deployment raises `StorageMissing`.
    """
    expected = (await catalog.storages()).get(name)
    try:
        incarnation = await storage.bind(deployment, expected)
    except StorageMissing as error:
        mismatches.count += 1
        if name != ARRAYS:
            raise
        logger.error("%s", error)
        return False
    if incarnation == expected:
        return False
    await catalog.remember_storage(name, incarnation)
    if expected is None:
        return False
    mismatches.count += 1
    logger.error(
        "%s is not the storage that the catalog knows (incarnation %s, expected %s). It is used from now on. What "
        "the log still has is applied to it again; for the rest see 'tiled-stream check'.",
        storage.place,
        incarnation,
        expected,
    )
    return True
