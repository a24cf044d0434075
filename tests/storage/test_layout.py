"""Names of places: they follow from ids, are safe as paths and as SQL, and never collide."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from tiled_stream.storage.layout import array_directory, dataset_id, file_uri, schema_table, table_name
from tiled_stream.testing.factories import new_id, table_structure


def test_arrays_are_spread_over_directories() -> None:
    node = new_id()
    assert array_directory(Path("/data"), node) == Path("/data") / node[:2] / node


def test_a_file_uri_can_be_read_back() -> None:
    path = Path("/data/with space/é#?%20")
    uri = urlsplit(file_uri(path))
    assert (uri.scheme, uri.netloc, unquote(uri.path)) == ("file", "localhost", str(path))


def test_dataset_ids_are_exact_in_json() -> None:
    numbers = {dataset_id(new_id()) for _ in range(1000)}
    assert len(numbers) == 1000
    assert all(0 <= n < 2**53 for n in numbers)


def test_tables_are_named_by_schema() -> None:
    one, same, other = table_structure(), table_structure(npartitions=3), table_structure({"x": "int64"})
    assert table_name(one, {}) == schema_table(one) == schema_table(same) != schema_table(other)
    assert table_name(one, {"table_name": "runs"}) == "runs"
    assert len(schema_table(one)) == len("table_") + 32
