"""Cells by HTTP: for updates that name a region instead of carrying it.

The region is asked from the server that the subscription speaks to, never from an address inside a message: a key is shown to
nobody else.
"""

from __future__ import annotations

import httpx

from .address import Address
from .credentials import Credentials
from .faults import fault_of_status

__all__ = ["Fetcher"]

_HEADERS = {"Accept": "application/octet-stream"}
_SECONDS = 60.0


class Fetcher:
    """Gets regions of arrays as bytes in C order."""

    def __init__(self, address: Address, credentials: Credentials) -> None:
        self._address = address
        self._credentials = credentials

    async def get(self, path: tuple[str, ...], taken: str) -> bytes:
        """A region. Safe to cancel."""
        try:
            async with httpx.AsyncClient(timeout=_SECONDS) as client:
                return _body(await client.get(self._address.array(path, taken), headers=self._headers()))
        except httpx.HTTPError as error:
            raise fault_of_status(503, f"The region cannot be fetched: {type(error).__name__}.") from None

    def get_sync(self, path: tuple[str, ...], taken: str) -> bytes:
        """A region, blocking."""
        try:
            with httpx.Client(timeout=_SECONDS) as client:
                return _body(client.get(self._address.array(path, taken), headers=self._headers()))
        except httpx.HTTPError as error:
            raise fault_of_status(503, f"The region cannot be fetched: {type(error).__name__}.") from None

    def _headers(self) -> dict[str, str]:
        return _HEADERS | self._credentials.headers()


def _body(response: httpx.Response) -> bytes:
    if response.status_code != 200:
        raise fault_of_status(response.status_code, response.text)
    return response.content
