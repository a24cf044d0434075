"""A PostgreSQL catalog of so many nodes, filled by SQL, and the plans and times of what is asked most.

    python loadtest/fill_catalog.py postgresql://postgres@127.0.0.1:5432/scratch --nodes 1000000

The database must be empty. Runs under the root, each with a plan name, a scan number and a sample; what a server writes into the
catalog looks the same. Prints the plans as docs/reference/query-plans.md shows them.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from typing import Any

import asyncpg
from rich.progress import Progress

from tiled_stream.catalog.facts import Kind, value_at
from tiled_stream.catalog.postgres import PostgresCatalog, numbered
from tiled_stream.catalog.postgres_connect import SCHEMA
from tiled_stream.catalog.postgres_dialect import encoded, parameter
from tiled_stream.domain.nodes import ROOT
from tiled_stream.domain.search import Filter, Page, Search, SortKey

STEP = 50_000
PLANS = ("count", "scan", "grid_scan", "fly", "tune")

QUESTIONS: list[tuple[str, Search]] = [
    ("newest page", Search((), (SortKey("", descending=True),))),
    ("a page in the middle, by cursor", Search()),
    ("equality on a metadata key", Search((Filter("eq", 123_456, key="start.scan_id"),))),
    (
        "equality that many nodes fulfil, newest first",
        Search((Filter("eq", "scan", key="start.plan_name"),), (SortKey("", descending=True),)),
    ),
    ("a range of numbers", Search((Filter("comparison", 999_990, key="start.scan_id", operator="gt"),))),
    (
        "two conditions",
        Search((Filter("eq", "scan", key="start.plan_name"), Filter("comparison", 5_000, key="start.scan_id", operator="lt"))),
    ),
]


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("uri")
    parser.add_argument("--nodes", type=int, default=1_000_000)
    given = parser.parse_args()
    catalog = PostgresCatalog(given.uri, init=True)
    await catalog.open()
    connection = await asyncpg.connect(given.uri, server_settings={"search_path": SCHEMA}, command_timeout=600)
    try:
        await fill(connection, given.nodes)
        await explain(catalog, connection, given.nodes)
    finally:
        await connection.close()
        await catalog.close()


async def fill(connection: Any, nodes: int) -> None:
    """Nodes, and three facts of each."""
    root = await connection.fetchval("SELECT n.row FROM nodes n WHERE n.parent IS NULL")
    paths = {}
    for key in ("start.scan_id", "start.plan_name", "start.sample"):
        paths[key] = await connection.fetchval("INSERT INTO paths (path) VALUES ($1) RETURNING id", value_at(key).encode())
    with Progress() as progress:
        bar = progress.add_task("nodes", total=nodes)
        for begin in range(1, nodes + 1, STEP):
            end = min(begin + STEP, nodes + 1)
            await connection.copy_records_to_table("nodes", records=[node(n, root) for n in range(begin, end)], columns=COLUMNS)
            facts = [fact for n in range(begin, end) for fact in facts_of(n, root, paths)]
            await connection.copy_records_to_table("facts", records=facts, columns=FACTS)
            progress.update(bar, advance=end - begin)
    await connection.execute("UPDATE nodes SET children = $1 WHERE parent IS NULL", nodes)
    await connection.execute("SELECT setval('node_rows', $1)", nodes + 10)
    await connection.execute("VACUUM ANALYZE")


COLUMNS = ["row", "parent", "depth", "created", "time_created", "time_updated", "id", "key", "family", "above", "path", "words"]
COLUMNS += ["specs", "access_tags", "data_sources", "metadata"]
FACTS = ["node", "parent", "path", "kind", "value", "text"]


def node(n: int, root: int) -> tuple[Any, ...]:
    plan = PLANS[n % 5]
    metadata = f'{{"start":{{"scan_id":{n},"plan_name":"{plan}","sample":"s{n % 997}"}}}}'
    words = f" {plan} s{n % 997} "
    texts = (f'["r{n}"]', words, '[{"name":"BlueskyRun","version":"3.0"}]', "[]", "[]", metadata)
    return (n + 1, root, 1, n, 1.7e9 + n, 1.7e9 + n, f"{n:032x}", f"r{n}", "container", [], *texts)


def facts_of(n: int, root: int, paths: dict[str, int]) -> list[tuple[Any, ...]]:
    number, text = int(Kind.NUMBER), int(Kind.TEXT)
    return [
        (n + 1, root, paths["start.scan_id"], number, encoded(Kind.NUMBER, n), str(n).encode()),
        (n + 1, root, paths["start.plan_name"], text, PLANS[n % 5].encode(), None),
        (n + 1, root, paths["start.sample"], text, f"s{n % 997}".encode(), None),
    ]


async def explain(catalog: PostgresCatalog, connection: Any, nodes: int) -> None:
    """Each question through the engine, timed; and the plan of its statement."""
    asked: list[tuple[str, tuple[Any, ...]]] = []
    fetch = catalog._all

    async def remembered(sql: str, parameters: Any) -> list[Any]:
        asked.append((sql, tuple(parameters)))
        return await fetch(sql, parameters)

    catalog._all = remembered  # type: ignore[method-assign]
    for name, search in QUESTIONS:
        page = Page(limit=100, cursor=nodes // 2 if "cursor" in name else None)
        await catalog.children(ROOT, search, page)
        begin = time.perf_counter()
        found = await catalog.children(ROOT, search, page)
        took = time.perf_counter() - begin
        await show(connection, name, *asked[-1], f"{len(found.hits)} hits in {1000 * took:.1f} ms")
    begin = time.perf_counter()
    count = await catalog.count(ROOT)
    print(f"## len\n\n{count} in {1000 * (time.perf_counter() - begin):.1f} ms\n")
    equal = [Filter("eq", "scan", key="start.plan_name")]
    begin = time.perf_counter()
    count = await catalog.count(ROOT, equal)
    await show(connection, "len of a search", *asked[-1], f"{count} in {1000 * (time.perf_counter() - begin):.1f} ms")


async def show(connection: Any, name: str, sql: str, parameters: tuple[Any, ...], said: str) -> None:
    values = [value.encode() if isinstance(value, str) and value.startswith("v") else parameter(value) for value in parameters]
    lines = await connection.fetch(f"EXPLAIN (ANALYZE, BUFFERS) {numbered(sql)}", *values)
    print(f"## {name}\n\n{said}\n\n```text\n" + "\n".join(line[0][:126] for line in lines) + "\n```\n")


if __name__ == "__main__":
    asyncio.run(main())
