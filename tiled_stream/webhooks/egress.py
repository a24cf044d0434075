"""Where this server may send to. A webhook's address comes from a user; it must not become a way into the operator's network.

What must stay true: EVERY address that a name resolves to is checked, and the connection goes to an address that was checked,
not to the name again (which may resolve to another one a moment later).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import SplitResult, urlsplit

from ..domain.errors import Malformed, Unsatisfiable

__all__ = ["MAX_URL", "Egress", "Resolve", "host_rules", "network_rules", "resolve", "split_url"]

#: Host and port → addresses.
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
Address = IPv4Address | IPv6Address

MAX_URL = 2048
_PORTS = {"http": 80, "https": 443}
_RESOLVE_SECONDS = 5.0
#: Translated addresses: the last 32 bits are an IPv4 address.
_NAT64 = IPv6Network("64:ff9b::/96")


async def resolve(host: str, port: int) -> list[str]:
    """All addresses of a name. `OSError` if there is none."""
    infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(info[4][0]) for info in infos))


def network_rules(networks: Sequence[str]) -> list[str]:
    """What is wrong with a list of networks; one sentence each."""
    wrong = []
    for text in networks:
        try:
            ip_network(text, strict=False)
        except ValueError:
            wrong.append(f"{text!r} is no network, such as 10.1.0.0/16")
    return wrong


def host_rules(hosts: Sequence[str]) -> list[str]:
    """What is wrong with a list of names of hosts."""
    wrong = []
    for text in hosts:
        try:
            ip_address(text)
        except ValueError:
            if not text or any(c in text for c in "/:@ "):
                wrong.append(f"{text!r} is no name of a host")
        else:
            wrong.append(f"{text!r} is an address; give the name of a host")
    return wrong


def split_url(url: str) -> SplitResult:
    """A URL that can be sent to. `Malformed` with the cure."""
    if len(url) > MAX_URL or not url.isascii() or not url.isprintable() or " " in url:
        raise Malformed(f"'url' must be printable ASCII without spaces, of at most {MAX_URL} characters.")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise Malformed(f"'url' is no URL: {error}.") from None
    if parts.scheme not in _PORTS or not parts.hostname or port == 0:
        raise Malformed("'url' must be of the form https://host/path.")
    if parts.username is not None or parts.password is not None:
        raise Malformed("'url' must not hold a user or a password; use 'secret', with which messages are signed.")
    return parts


class Egress:
    """The rules of a server. `find` resolves names. `hosts` are let through whatever their addresses are."""

    def __init__(
        self,
        *,
        networks: Sequence[str] = (),
        hosts: Sequence[str] = (),
        allow_http: bool = False,
        allow_private: bool = False,
        find: Resolve = resolve,
    ) -> None:
        self._networks = [ip_network(text, strict=False) for text in networks]
        self._hosts = frozenset(host.lower().rstrip(".") for host in hosts)
        self._allow_http = allow_http
        self._allow_private = allow_private
        self._find = find

    async def check(self, url: str) -> None:
        """`Malformed` for what is no URL or a scheme that is not allowed, `Unsatisfiable` for where nothing may be sent."""
        parts = self.check_form(url)
        assert parts.hostname is not None
        await self.addresses(parts.hostname, parts.port or _PORTS[parts.scheme])

    def check_form(self, url: str) -> SplitResult:
        """What `check` says before a name is looked up."""
        parts = split_url(url)
        if parts.scheme == "http" and not self._allow_http:
            raise Malformed("'url' must begin with https://: over plain HTTP anybody on the way could read and replay messages.")
        return parts

    async def addresses(self, host: str, port: int) -> list[str]:
        """The addresses of a host, all of them allowed. `Unsatisfiable` otherwise, also for a name that has none."""
        try:
            async with asyncio.timeout(_RESOLVE_SECONDS):
                found = list(await self._find(host, port))
        except (OSError, UnicodeError, TimeoutError):
            found = []
        if not found:
            raise Unsatisfiable(
                f"The host {host!r} cannot be resolved, so that nobody knows whether it is private; check the name."
            )
        if host.lower().rstrip(".") not in self._hosts:
            for text in found:
                self._check(host, ip_address(text.partition("%")[0]))
        return found

    def _check(self, host: str, address: Address) -> None:
        for inner in _meant(address):
            if not self._allow_private and _is_private(inner):
                raise Unsatisfiable(
                    f"The host {host!r} has the address {address}, which is private, loopback, link-local or reserved: nothing "
                    "is sent there. The operator can allow it (webhooks.allow_delivery_hosts, webhooks.allow_private_addresses)."
                )
            for network in self._networks:
                if inner.version == network.version and inner in network:
                    raise Unsatisfiable(
                        f"The host {host!r} has the address {address}, in the blocked network {network}: nothing is sent there."
                    )


def _meant(address: Address) -> list[Address]:
    """The address, and those that are inside of it: IPv4 in IPv6 leads to the IPv4 address."""
    meant: list[Address] = [address]
    if isinstance(address, IPv6Address):
        teredo = address.teredo
        meant += [inner for inner in (address.ipv4_mapped, address.sixtofour, *(teredo or ())) if inner is not None]
        if address in _NAT64:
            meant.append(IPv4Address(int(address) & 0xFFFFFFFF))
    return meant


def _is_private(address: Address) -> bool:
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return _is_private(address.ipv4_mapped)
    return not address.is_global or address.is_multicast or address.is_reserved or address.is_unspecified
