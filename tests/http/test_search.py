"""Listings over the wire."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture
async def many(server: Any) -> Any:
    await server.create("c")
    for n in range(7):
        specs = [{"name": "Even", "version": None}] if n % 2 == 0 else []
        await server.create(f"c/k{n}", metadata={"n": n, "color": "red" if n < 3 else "blue"}, specs=specs)
    return server


def where(name: str, **fields: str) -> str:
    """A filter as clients write it."""
    return "&".join(f"filter[{name}][condition][{field}]={value}" for field, value in fields.items())


def ids(answer: Any) -> list[str]:
    return [node["id"] for node in answer["data"]]


async def test_a_listing_is_in_order_of_creation_and_ends(many: Any) -> None:
    answer = await many.ok("GET", "/search/c")
    assert ids(answer) == [f"k{n}" for n in range(7)]
    assert answer["links"]["next"] is None
    assert answer["meta"] == {"count": 7}
    assert answer["data"][0]["attributes"]["ancestors"] == ["c"]
    assert answer["data"][0]["links"]["self"] == "http://server/api/v1/metadata/c/k0"


@pytest.mark.parametrize("order", ["", "sort=-&", "sort=n&", "sort=-n&"])
async def test_pages_follow_each_other_until_next_is_null(many: Any, order: str) -> None:
    found: list[str] = []
    path = f"/search/c?{order}page[limit]=3"
    while path:
        answer = await many.ok("GET", path)
        found += ids(answer)
        following = answer["links"]["next"]
        # Clients merge the query of `next` with what they asked.
        path = following and following.removeprefix("http://server/api/v1") + f"&{order}".rstrip("&")
    forwards = [f"k{n}" for n in range(7)]
    assert found == (forwards[::-1] if "-" in order else forwards)


async def test_a_count_is_exact_and_brings_no_nodes(many: Any) -> None:
    answer = await many.ok("GET", "/search/c?fields=count")
    assert (answer["data"], answer["meta"]) == ([], {"count": 7})
    red = where("eq", key="color", value='"red"')
    answer = await many.ok("GET", f"/search/c?fields=count&{red}")
    assert answer["meta"] == {"count": 3}


async def test_filters_and_negative_ends(many: Any) -> None:
    query = where("comparison", operator="ge", key="n", value="4")
    assert ids(await many.ok("GET", f"/search/c?{query}")) == ["k4", "k5", "k6"]
    assert ids(await many.ok("GET", f"/search/c?{query}&page[offset]=0&page[limit]=1&sort=-")) == ["k6"]
    assert ids(await many.ok("GET", f"/search/c?{where('lookup', key='k2')}")) == ["k2"]
    even = where("specs", include='["Even"]', exclude="[]")
    assert ids(await many.ok("GET", f"/search/c?{even}")) == ["k0", "k2", "k4", "k6"]


async def test_all_levels_at_once(many: Any) -> None:
    await many.create("c/k1/deep")
    answer = await many.ok("GET", "/search-deep/?filter[lookup][condition][key]=deep")
    assert answer["data"][0]["attributes"]["ancestors"] == ["c", "k1"]
    assert ids(await many.ok("GET", "/search-deep/?max_depth=1")) == ["c"]
    first = await many.ok("GET", "/search-deep/?page[limit]=2")
    assert first["links"]["next"].startswith("http://server/api/v1/search-deep/?page[cursor]=")


async def test_distinct_values_with_their_counts(many: Any) -> None:
    url = "/distinct/c?metadata=color&structure_families=true&specs=true&counts=true"
    answer = await many.ok("GET", url)
    assert sorted(answer["metadata"]["color"], key=lambda v: v["value"]) == [
        {"value": "blue", "count": 4},
        {"value": "red", "count": 3},
    ]
    assert answer["structure_families"] == [{"value": "container", "count": 7}]
    assert len(answer["specs"]) == 2
    bare = await many.ok("GET", "/distinct/c?metadata=color&structure_families=false&specs=false&counts=false")
    assert bare["structure_families"] is None
    assert bare["specs"] is None
    assert {v["count"] for v in bare["metadata"]["color"]} == {None}


SENSELESS = [
    ("page[offset]=1&page[cursor]=1", 400),
    ("page[cursor]=1&sort=n", 400),
    ("sort=n&sort=n", 400),
    ("sort=-&sort=n", 400),
    ("sort=a;b", 422),
    ("page[limit]=301", 422),
    ("page[limit]=-1", 422),
    ("page[offset]=x", 422),
    ("page[offset]=99999999999999999999", 422),
    ("filter[eq][condition][key]=a", 422),
    ("filter[eq][condition][key]=a&filter[eq][condition][value]=red", 422),
    ("filter[nothing][condition][key]=a", 400),
    (where("comparison", operator="x", key="a", value="1"), 422),
    ("filter[regex][condition][key]=a&filter[regex][condition][pattern]=b", 400),
]


async def test_questions_that_make_no_sense(many: Any) -> None:
    for query, status in SENSELESS:
        response = await many.client.get(f"/api/v1/search/c?{query}")
        assert response.status_code == status, (query, response.text)


async def test_only_containers_are_searched(many: Any) -> None:
    import numpy

    await many.array("a", numpy.arange(3))
    for path in ("/search/a", "/search-deep/a", "/distinct/a", "/search/nothing"):
        assert (await many.refused("GET", path))[0] == 404
    assert (await many.refused("GET", "/search-deep/?sort=n"))[0] == 400


async def test_counts_beyond_the_limit_are_told_as_one_more(serve: Any) -> None:
    async with serve(exact_count_limit=5) as server:
        for n in range(8):
            await server.create(f"c{n}", metadata={"even": n % 2 == 0})
            await server.create(f"c0/d{n}")
        even = "filter[eq][condition][key]=even&filter[eq][condition][value]=true"
        for begin in ("/search/", "/search/?page[limit]=2"):
            assert (await server.ok("GET", begin))["meta"]["count"] == 6
        assert (await server.ok("GET", "/search-deep/?page[limit]=1"))["meta"]["count"] == 6
        assert (await server.ok("GET", f"/search/?page[limit]=1&{even}"))["meta"]["count"] == 4
        assert (await server.ok("GET", "/search/?fields=count"))["meta"]["count"] == 8
        assert (await server.ok("GET", "/search-deep/?fields=count"))["meta"]["count"] == 16
        assert (await server.ok("GET", "/metadata/c0"))["data"]["attributes"]["structure"]["count"] == 6
        assert (await server.ok("GET", "/metadata/c1"))["data"]["attributes"]["structure"]["count"] == 0
        told = {n["id"]: n["attributes"]["structure"]["count"] for n in (await server.ok("GET", "/search/"))["data"]}
        assert (told["c0"], told["c1"]) == (6, 0)
