"""Is the server of this container alive? ``python -m tiled_stream.healthcheck``: 0, or 1 with the reason. Needs no curl.

``--ready`` asks whether it should get traffic instead. `TILED_STREAM_HOST` and `TILED_STREAM_PORT` say where it listens
(127.0.0.1:8000). What must stay true: only the standard library, for it runs every few seconds; and no proxy is asked, whatever
the environment says of proxies.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from http.client import HTTPConnection, HTTPException

__all__ = ["main"]

#: Below the time-out of the health check in the Containerfile (3 s), so that the reason is still told.
_SECONDS = 2.0
#: Where a server that listens on all addresses is found.
_EVERYWHERE = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}


def main(words: Sequence[str], environ: Mapping[str, str]) -> int:
    """Ask, and say what is wrong. Exit status."""
    host, port = environ.get("TILED_STREAM_HOST", ""), environ.get("TILED_STREAM_PORT", "8000")
    page = "/readyz" if "--ready" in words else "/healthz"
    fault = _fault(_EVERYWHERE.get(host, host), port, page)
    if fault:
        print(f"{page} of the server on port {port} {fault}", file=sys.stderr)
    return 1 if fault else 0


def _fault(host: str, port: str, page: str) -> str:
    """What is wrong; "" if nothing."""
    if not port.isdecimal():
        return "cannot be asked: TILED_STREAM_PORT is no number"
    connection = HTTPConnection(host, int(port), timeout=_SECONDS)
    try:
        connection.request("GET", page)
        answer = connection.getresponse()
        said = answer.read(500).decode(errors="replace")
    except (OSError, HTTPException, OverflowError) as error:
        return f"does not answer: {error or type(error).__name__}"
    finally:
        connection.close()
    return "" if answer.status == 200 else f"answers {answer.status}: {said}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
