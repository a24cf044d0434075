"""Is the server of this container alive? ``python -m tiled_stream.healthcheck``: 0, or 1 with the reason. Needs no curl.

`TILED_STREAM_PORT` says where it listens (8000), ``--ready`` asks whether it should get traffic instead.
"""

from __future__ import annotations

import os
import sys
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

__all__ = ["main"]

_SECONDS = 3


def main() -> int:
    """Ask, and say what is wrong."""
    page = "readyz" if "--ready" in sys.argv[1:] else "healthz"
    url = f"http://127.0.0.1:{os.environ.get('TILED_STREAM_PORT', '8000')}/{page}"
    try:
        with urlopen(url, timeout=_SECONDS):
            return 0
    except HTTPError as error:
        print(f"{url} answers {error.code}: {error.read(500).decode(errors='replace')}", file=sys.stderr)
    except (URLError, OSError) as error:
        print(f"{url} does not answer: {error}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
