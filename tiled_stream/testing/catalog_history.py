"""Random histories of a tree, and what a catalog must hold after them: the oracle of `apply`.

Written from the words of `catalog/port.py` alone; it shares no code with any engine. Every batch is one that a persister could
send: consecutive records of one node's log, about children that exist.
"""

from __future__ import annotations

import random
from typing import Any

import msgspec

from ..catalog.port import CatalogBatch, Loss
from ..domain.events import (
    ArrayWritten,
    ChildCreated,
    ChildDeleted,
    ChildMetadataUpdated,
    Event,
    Record,
    RevisionDeleted,
    StreamEnded,
)
from ..domain.nodes import ROOT, Node, NodeId, Spec
from ..domain.structures import ArrayStructure
from .factories import array_node, array_structure, container_node

__all__ = ["History"]


class History:
    """What is expected: `nodes` by id in order of creation, `watermarks`, `revisions` by (id, number), ids that are `gone`.

    Also what the storage of nodes had (`stored`), and `losses` in the order in which they were found.
    """

    def __init__(self, seed: int) -> None:
        self.nodes: dict[NodeId, Node] = {ROOT: container_node("", id=ROOT, parent=None)}
        self.watermarks: dict[NodeId, int] = {ROOT: 0}
        self.revisions: dict[tuple[NodeId, int], dict[str, Any]] = {}
        self.gone: set[NodeId] = set()
        self.stored: dict[NodeId, int] = {}
        self.losses: list[Loss] = []
        self._chance = random.Random(seed)
        self._time = 1000.0
        self._named = 0

    def batch(self) -> CatalogBatch:
        """The next few records of some node, which are expected to be applied."""
        node = self._chance.choice(list(self.nodes.values()))
        after = self.watermarks[node.id]
        events: list[Event] = []
        for _ in range(self._chance.randint(1, 6)):
            self._time += 1.0
            event = self._on_child(node.id) if node.family == "container" else self._on_array(node.id)
            self._expect(node.id, event, after + len(events) + 1)
            events.append(event)
        self.watermarks[node.id] = after + len(events)
        first = self._time - len(events)
        records = tuple(Record(after + n, first + n, event) for n, event in enumerate(events, start=1))
        stored = self._chance.randint(0, after + len(events)) if self._chance.random() < 0.5 else 0
        losses = tuple(self._loss(node.id) for _ in range(self._chance.choice((0, 0, 0, 1, 2))))
        if node.id in self.nodes:
            self.stored[node.id] = max(stored, self.stored.get(node.id, 0))
            known = {(loss.node, loss.first, loss.last) for loss in self.losses}
            for loss in losses:
                if (loss.node, loss.first, loss.last) not in known:
                    known.add((loss.node, loss.first, loss.last))
                    self.losses.append(loss)
        return CatalogBatch(node.id, after, records, stored, losses)

    def lost(self, id: NodeId) -> int:
        """Expected number of lost records."""
        return sum(loss.last - loss.first + 1 for loss in self.losses if loss.node == id)

    def _loss(self, id: NodeId) -> Loss:
        first = self._chance.randint(1, 3)
        return Loss(id, first, first + self._chance.randrange(2), self._time, "left the log")

    def children(self, parent: NodeId) -> list[Node]:
        """Expected children, in order of creation."""
        return [node for node in self.nodes.values() if node.parent == parent]

    def below(self, ancestor: NodeId) -> list[Node]:
        """Expected descendants, in order of creation."""
        found, inside = [], {ancestor}
        for node in self.nodes.values():
            if node.parent in inside:
                inside.add(node.id)
                found.append(node)
        return found

    def _on_child(self, parent: NodeId) -> Event:
        children = self.children(parent)
        if not children or self._chance.random() < 0.5:
            self._named += 1
            build = self._chance.choice((container_node, container_node, array_node))
            return ChildCreated(build(f"k{self._named}", parent=parent, metadata=self._metadata()))
        child = self._chance.choice(children)
        what = self._chance.random()
        if what < 0.5:
            revision = child.revision + 1 if self._chance.random() < 0.7 else None
            return ChildMetadataUpdated(child.key, child.id, self._metadata(), (Spec("s", "1"),), ("t",), revision)
        if what < 0.7:
            return RevisionDeleted(child.key, child.id, self._chance.randint(1, 3))
        return ChildDeleted(child.key, child.id)

    def _on_array(self, id: NodeId) -> Event:
        structure = self.nodes[id].structure
        assert isinstance(structure, ArrayStructure)
        if self._chance.random() < 0.3:
            return StreamEnded()
        if self._chance.random() < 0.5:
            return ArrayWritten(structure.shape)
        longer = array_structure((structure.shape[0] + 1, *structure.shape[1:]))
        return ArrayWritten((1, *structure.shape[1:]), (structure.shape[0],), structure=longer)

    def _metadata(self) -> dict[str, Any]:
        return {"v": self._chance.randrange(5), "text": self._chance.choice(("some words", "other"))}

    def _expect(self, own: NodeId, event: Event, sequence: int) -> None:
        if isinstance(event, ChildCreated):
            made = msgspec.structs.replace(event.node, created=sequence, time_created=self._time, time_updated=self._time)
            self.nodes[made.id] = made
            self.watermarks[made.id] = 0
        elif isinstance(event, ChildMetadataUpdated):
            before = self.nodes[event.id]
            if event.revision is not None:
                self.revisions[event.id, event.revision] = before.metadata
            self.nodes[event.id] = msgspec.structs.replace(
                before,
                metadata=event.metadata,
                specs=event.specs,
                access_tags=event.access_tags,
                revision=before.revision if event.revision is None else event.revision,
                time_updated=self._time,
            )
        elif isinstance(event, RevisionDeleted):
            self.revisions.pop((event.id, event.number), None)
        elif isinstance(event, ChildDeleted):
            for node in [self.nodes[event.id], *self.below(event.id)]:
                del self.nodes[node.id]
                self.gone.add(node.id)
            self.revisions = {key: old for key, old in self.revisions.items() if key[0] not in self.gone}
            self.losses = [loss for loss in self.losses if loss.node not in self.gone]
        elif isinstance(event, ArrayWritten) and event.structure is not None:
            node = self.nodes[own]
            source = msgspec.structs.replace(node.data_sources[0], structure=event.structure)
            self.nodes[own] = msgspec.structs.replace(node, data_sources=(source,))
