"""How large the write-ahead log of a SQLite file may grow before it is copied into the file.

What must stay true: on a small disk it is copied early enough. A disk that is full of a write-ahead log cannot be emptied by a
checkpoint, which needs room for the file to grow, and so would stay full for ever.
"""

from __future__ import annotations

import shutil
from pathlib import Path

__all__ = ["checkpoint_pages"]

_PAGE = 4096
#: The write-ahead log takes at most this share of the room that there is when the file is opened.
_SHARE = 16
_FEWEST = 64


def checkpoint_pages(path: Path, *, most: int) -> int:
    """Pages of 4 KiB for ``PRAGMA wal_autocheckpoint``: `most` where there is room. The directory of `path` exists."""
    free = shutil.disk_usage(path.parent).free
    return max(_FEWEST, min(most, free // _SHARE // _PAGE))
