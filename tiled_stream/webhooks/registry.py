"""Who wants to be told: registrations as users make and see them.

What must stay true: nothing is registered to which nothing would be sent; a secret is never given out again, nor kept as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..domain.errors import Malformed
from ..domain.nodes import NodeId
from .egress import Egress
from .model import KINDS, Delivery, Webhook
from .store import Store
from .vault import Vault

__all__ = ["MAX_SECRET", "Registry"]

MAX_SECRET = 1000


class Registry:
    """All methods: `Unavailable` if the database cannot be reached."""

    def __init__(self, store: Store, egress: Egress, vault: Vault, *, now: Callable[[], float]) -> None:
        self._store = store
        self._egress = egress
        self._vault = vault
        self._now = now

    async def register(
        self, chain: Sequence[NodeId], url: str, *, secret: str | None = None, events: Sequence[str] | None = None
    ) -> Webhook:
        """Tell `url` of the last node of `chain` and of what is below it, from now on. Without `events`: of everything.

        `Malformed` for what cannot be understood, `Unsatisfiable` for an address that nothing is sent to.
        """
        for kind in events or ():
            if kind not in KINDS:
                raise Malformed(f"There is no event {kind!r}; known are {', '.join(KINDS)}.")
        if secret is not None and not 0 < len(secret) <= MAX_SECRET:
            raise Malformed(f"'secret' has 1 to {MAX_SECRET} characters; leave it out for messages without a signature.")
        # From before the look-up on: what happens after the answer must be told, and what happens meanwhile may be.
        now = self._now()
        await self._egress.check(url)
        sealed = None if secret is None else self._vault.seal(secret)
        return await self._store.add(
            chain[-1], chain=chain, url=url, secret=sealed, events=tuple(dict.fromkeys(events or ())) or None, now=now
        )

    async def of_node(self, node: NodeId) -> list[Webhook]:
        """Those that were registered on this very node."""
        return await self._store.webhooks(node)

    async def remove(self, id: int) -> None:
        """With what waits for it and its history. `NotFound`."""
        await self._store.remove(id)

    async def history(self, id: int, *, limit: int) -> list[Delivery]:
        """The last deliveries, newest first. `NotFound`."""
        return await self._store.history(id, limit=limit)
