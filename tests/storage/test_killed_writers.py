"""Writers of the file stores that are killed (`kill -9`): what was confirmed is stored, and the next one continues."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.storage.batch_writer import RECORDS, history, store_of

WRITER = Path(__file__).with_name("batch_writer.py")


def killed_after(lines: int, kind: str, root: Path, fence: int) -> int:
    """Run a writer until it has confirmed so many batches, then kill it. Returns the last watermark that it confirmed."""
    with subprocess.Popen(
        [sys.executable, str(WRITER), kind, str(root), str(fence)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        watermark = 0
        for _ in range(lines):
            watermark = int(process.stdout.readline())
        process.kill()
        for line in process.stdout:
            if line.endswith("\n"):
                watermark = int(line)
    return watermark


@pytest.mark.parametrize("kind", ["arrays", "parts", "tables"])
async def test_killed_writer_is_succeeded_where_it_ended(tmp_path: Path, kind: str) -> None:
    model = history(kind)
    confirmed = 0
    for fence, lines in enumerate((1, 37, 90), start=1):
        confirmed = max(confirmed, killed_after(lines, kind, tmp_path, fence))
        store = store_of(kind, tmp_path)
        (watermark,) = await store.watermarks([model.node])
        assert confirmed <= watermark <= confirmed + 1  # one more may have been stored and not confirmed
        await store.close()
    store = store_of(kind, tmp_path)
    (watermark,) = await store.watermarks([model.node])
    assert await store.apply([model.batch(watermark, RECORDS, fence=9)]) == [RECORDS]
    await model.assert_reads(store)
    await store.close()
