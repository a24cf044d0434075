"""Refuses to read a node of which catalog or storage lack acknowledged data: an error that names them, never zeros or emptiness.

What must stay true: a node is served without this check only after catalog and storage were compared in this process, and
only until something happens that may have changed it (`forget`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable

from ..catalog.port import Catalog
from ..domain.errors import DataLost, Unavailable
from ..domain.nodes import Node, NodeId
from ..storage.stores import Stores

__all__ = ["Completeness"]

#: Nodes that are known to be complete; the one compared first is compared again first.
_REMEMBERED = 100_000


class Completeness:
    """`state` names the present log and storages: after a change everything is compared again. `suspect` hears of a storage
    that is behind."""

    def __init__(
        self, catalog: Catalog, stores: Stores, *, state: Callable[[], Hashable], suspect: Callable[[NodeId], None]
    ) -> None:
        self._catalog = catalog
        self._stores = stores
        self._state = state
        self._suspect = suspect
        self._complete: OrderedDict[NodeId, None] = OrderedDict()
        self._compared_in: Hashable = None

    def forget(self) -> None:
        """Compare every node again: something was lost, or restored to an earlier state."""
        self._complete.clear()

    async def check(self, node: Node, *, path: tuple[str, ...], head: int) -> Hashable:
        """`DataLost` if records of this node are lost, if the catalog has less of it than the log says is persisted, or the
        storage less than the catalog says.

        Call it behind the barrier, which has waited for `head`, and before the read. Returns what `confirm` compares after it.
        """
        state = self._state()
        if state != self._compared_in:
            self._compared_in = state
            self.forget()
        if node.id in self._complete:
            return state
        known = (await self._catalog.reached([node.id]))[0]
        if known is None:  # deleted meanwhile, or above what is mounted
            return state
        where = "/" + "/".join(path)
        if known.lost:
            raise DataLost(
                f"{known.lost} acknowledged records of {where} (node {node.id}) are lost. 'tiled-stream check' lists them; "
                "'tiled-stream check --accept' serves what is there.",
                retry_after=60.0,
            )
        if known.watermark < head:
            self._suspect(node.id)
            raise DataLost(
                f"The catalog has the records of {where} (node {node.id}) up to {known.watermark} of {head}: it was "
                "restored from an older backup. What the log still has is being applied again; try again.",
                retry_after=1.0,
            )
        if known.stored:
            held = await self._stores.watermark(node)
            if held is not None and held < known.stored:
                self._suspect(node.id)
                raise DataLost(
                    f"The storage of {where} (node {node.id}) has its records up to {held}, the catalog up to {known.stored}: "
                    "it was restored from an older backup, or begun anew. What the log still has is being applied again; "
                    "try again.",
                    retry_after=1.0,
                )
        self._complete[node.id] = None
        if len(self._complete) > _REMEMBERED:
            self._complete.popitem(last=False)
        return state

    def confirm(self, state: Hashable) -> None:
        """`Unavailable` if log or storage were replaced since `check`: what was read may be of the one or of the other."""
        if state != self._state():
            raise Unavailable("The storage was replaced while it was read. Try again.", retry_after=1.0)
