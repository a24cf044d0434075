"""tiled_stream: an async-first server of the Tiled protocol, built around a log.

The public surface: `SimpleTiledServer` (a server in this process), `Settings` and `create_app` (for those who put one together).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from .http.app import create_app
    from .run.embedded import SimpleTiledServer
    from .run.settings import Settings

__all__ = ["Settings", "SimpleTiledServer", "__version__", "create_app"]

_HOMES = {
    "SimpleTiledServer": "tiled_stream.run.embedded",
    "Settings": "tiled_stream.run.settings",
    "create_app": "tiled_stream.http.app",
}


def __getattr__(name: str) -> Any:
    """Import on first use, so that `import tiled_stream` is quick."""
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
