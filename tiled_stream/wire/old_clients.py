"""What older versions of the stock client cannot take: keys that they do not know make them fail.

A client says its version with each request. Who says nothing, or something else, is taken for a current one.
"""

from __future__ import annotations

import re
from typing import Any

from ..domain.errors import Unsatisfiable

__all__ = ["Version", "adapted", "version_of"]

#: As in 0.1.0a104; the last number is that of an alpha, or larger than all of them.
Version = tuple[int, int, int, int]

_AGENT = re.compile(r"python-tiled/([0-9]{1,6})\.([0-9]{1,6})\.([0-9]{1,6})(?:a([0-9]{1,6}))?")
_RELEASE = 1 << 30
_OLDEST: Version = (0, 1, 0, 104)
_PROPERTIES: Version = (0, 2, 4, 0)
_SIZES: Version = (0, 2, 13, 0)
_TAGS: Version = (0, 2, 19, 0)


def version_of(agent: str | None) -> Version | None:
    """Of an old client, by its `User-Agent`; None for a current one. `Unsatisfiable` for one that is too old for this wire."""
    match = _AGENT.match(agent or "")
    if match is None:
        return None
    version = (int(match[1]), int(match[2]), int(match[3]), _RELEASE if match[4] is None else int(match[4]))
    if version < _OLDEST:
        raise Unsatisfiable(
            f"This client ({match[0]}) is too old for this server; upgrade it: pip install --upgrade 'tiled[client]'."
        )
    return version if version < _TAGS else None


def adapted(attributes: dict[str, Any], version: Version) -> None:
    """Take out of a node's attributes what a client of this version does not know."""
    for source in attributes["data_sources"] or ():
        if version < _PROPERTIES:
            del source["properties"]
        if version < _SIZES:
            for asset in source["assets"]:
                del asset["size"]
    if version < _TAGS:
        tags = attributes.pop("access_tags")
        attributes["access_blob"] = {} if tags is None else {"tags": tags}
