"""Libraries that only some formats need, imported when the first answer in such a format is made.

A server without them says which package is missing; everything else goes on.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ..domain.errors import NotAcceptable

__all__ = ["library"]


def library(name: str, *, package: str = "") -> Any:
    """The module `name`; `NotAcceptable` with the package to install if there is none."""
    try:
        return import_module(name)
    except ImportError:
        raise NotAcceptable(
            f"This format needs the package {package or name!r}, which this server has not: pip install 'tiled-stream[files]'."
        ) from None
