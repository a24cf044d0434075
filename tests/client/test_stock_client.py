"""The stock client of Tiled beside the additions of this server: it is not disturbed by them."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy
import pyarrow
import pytest

from tests.client.served import Served
from tiled_stream.domain.events import Draft, RecordLost


class Received:
    """What the callbacks of a subscription got."""

    def __init__(self) -> None:
        self.updates: list[Any] = []
        self._changed = threading.Condition()

    def __call__(self, update: Any) -> None:
        with self._changed:
            self.updates.append(update)
            self._changed.notify_all()

    def wait(self, count: int) -> list[Any]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.updates) >= count, 30), self.updates
            return self.updates


@pytest.fixture
def client(server: Served) -> Any:
    client_module = pytest.importorskip("tiled.client", reason="the peer is not installed; `make setup` does")
    client = client_module.from_uri(server.uri)
    weakref.finalize(client, client.context.http_client.close)
    return client


@pytest.mark.filterwarnings("ignore:connect:DeprecationWarning")  # of the stock client
def test_epoch_in_the_schema_and_notices_of_gaps_disturb_no_stream(
    server: Served, client: Any, fresh: Callable[[str], str]
) -> None:
    root, array, table = fresh("run"), "a", "t"
    server.container(root)
    server.array(f"{root}/{array}")
    server.table(f"{root}/{table}", pyarrow.schema([("x", pyarrow.int64())]))
    server.write(f"{root}/{array}", 1.0)
    server.append(f"{root}/{table}", x=[1, 2])
    services = server.assembly.services

    async def lose() -> None:
        node = (await services.browse.resolve((root, array))).node.id
        await services.log.append(node, Draft(RecordLost(), 1.0))

    server.run(lose())
    server.write(f"{root}/{array}", 2.0)
    cells, rows, children = Received(), Received(), Received()
    run = client[root]
    subscriptions = [node.subscribe(ThreadPoolExecutor(1)) for node in (run[array], run[table], run)]  # one after the other
    subscriptions[0].new_data.add_callback(cells)
    subscriptions[1].new_data.add_callback(rows)
    subscriptions[2].child_created.add_callback(children)
    for subscription in subscriptions:
        subscription.start_in_thread(0)
    try:
        assert [numpy.asarray(update.data()).tolist() for update in cells.wait(2)] == [[1, 1], [2, 2]]
        assert rows.wait(1)[0].sequence == 1
        assert [update.key for update in children.wait(2)] == [array, table]
        server.write(f"{root}/{array}", 3.0)
        server.append(f"{root}/{table}", x=[3])
        assert [update.sequence for update in cells.wait(3)] == [1, 3, 4]
        assert [update.sequence for update in rows.wait(2)] == [1, 2]
    finally:
        for subscription in subscriptions:
            subscription.disconnect()
