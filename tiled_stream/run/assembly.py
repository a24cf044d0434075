"""One server put together: engines, verbs, edge; opened in order, closed in reverse.

What must stay true: when the context ends, no task, thread, file lock or lease is left (I9), and nothing acknowledged is lost:
what could not be persisted in time stays in the log (I6).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from ..accounts.database import database_at
from ..accounts.providers import AuthenticatorError, providers_of
from ..accounts.store import Accounts
from ..accounts.tokens import Tokens
from ..broadcast.hub import Hub
from ..catalog.port import Catalog
from ..domain.errors import Unavailable
from ..domain.nodes import NodeId, Spec
from ..http.access import Access
from ..http.app import create_app
from ..http.services import EdgeSettings, Services
from ..http.shell import Shell
from ..http.user_access import UserAccess
from ..ingest.deletion import Deletion
from ..ingest.writer import Writer
from ..log.port import Persisted
from ..nodes.repository import Repository
from ..query.browse import Browse
from ..query.history import History
from ..query.read import DataReader
from ..query.read_files import FileData
from ..storage.port import ArrayStore, PartStore
from ..storage.tables import Tables
from .engines import Engines, Places, engines_of, places_of
from .heart import Heart
from .identities import Mismatches, bind_storage
from .mounting import mount
from .persistence import Persistence
from .readers import readers_of
from .settings import Settings, SettingsError
from .specs import promises_of

if TYPE_CHECKING:
    from .hooks import Hooks

__all__ = ["Assembly", "assembled"]

logger = logging.getLogger(__name__)

#: How long draining waits for subscribers to take their leave, in seconds.
_FAREWELL = 2.0


class _Stores(TypedDict):
    arrays: ArrayStore | None
    parts: PartStore | None
    tables: Tables | None


class Assembly:
    """A running server without its sockets."""

    def __init__(
        self, settings: Settings, places: Places, engines: Engines, *, mismatches: Mismatches, hooks: Hooks | None = None
    ) -> None:
        log, catalog = engines.log, engines.catalog
        stores: _Stores = {"arrays": engines.arrays, "parts": engines.parts, "tables": engines.tables}
        notify = None if hooks is None else hooks.outbox.take
        repository = Repository(log, catalog)
        self.persistence = Persistence(settings, places, engines, mismatches=mismatches, notify=notify, forget=repository.forget)
        barrier, complete = self.persistence.barrier, self.persistence.complete
        self._settings = settings
        self._log = log
        self._repository = repository
        self._heart = Heart()
        self.places = places
        past = History(log, catalog, stores=self.persistence.stores) if settings.history else None
        self.hub = Hub(log, now=time.time, past=past)
        self._hooks = hooks
        self.promises = promises_of(settings.specs, strict=settings.reject_undeclared_specs)
        deletion = Deletion(repository, catalog, barrier=barrier)
        readable = (*settings.read, *([str(places.arrays)] if places.arrays else []))  # what may be written may be read
        limit, strict = settings.response_bytesize_limit, bool(settings.read)
        readers = readers_of(settings.adapters_by_mimetype)
        self.files = FileData(readable, log=log, now=time.time, limit=limit, is_strict=strict, readers=readers)
        self.services = Services(
            writer=Writer(log, repository, barrier=barrier, deletion=deletion, promises=self.promises, **stores, now=time.time),
            browse=Browse(
                repository,
                catalog,
                backlog=log,
                barrier=barrier,
                files=self.files,
                complete=complete,
                exact_count_limit=settings.exact_count_limit if settings.exact_count_limit >= 0 else None,
            ),
            reader=DataReader(barrier=barrier, **stores, files=self.files, complete=complete, limit=limit),
            hub=self.hub,
            log=log,
            ready=self.check_ready,
            stats=self.stats,
            webhooks=None if hooks is None else hooks.registry,
        )
        self.access = _access(settings)
        self.app: Shell = create_app(self.services, _edge_settings(settings), access=self.access)

    async def start(self, *, is_new_storage: bool = False) -> None:
        """Begin to persist, unless other processes do. `is_new_storage`: a storage is not the one that the catalog knew."""
        self.persistence.start(is_new_storage=is_new_storage)
        await mount(self._settings, self._repository, self.services.writer)
        if self._hooks is not None:
            self._hooks.start(lambda: self._repository.mounts)
        self._heart.start()
        # Loaded before the server says that it is ready, or the first write of a table would wait for it.
        await asyncio.to_thread(_warm)

    async def drain(self) -> None:
        """Tell every subscriber that this server stops, and let them go."""
        await self.hub.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL):
                while self.hub.subscribers():  # noqa: ASYNC110 - they leave on their own, soon
                    await asyncio.sleep(0.01)

    async def finish(self) -> None:
        """End the background work; persist what is pending, unless other servers do."""
        await self._heart.stop()
        await self.persistence.finish()

    async def check_ready(self) -> None:
        """`Unavailable` with the reason while this server should get no traffic."""
        if self.hub.is_draining:
            raise Unavailable("This server is stopping.")
        await self.persistence.check_ready()

    async def stats(self) -> dict[str, float]:
        """Figures for metrics."""
        hub = self.hub.stats()
        of_process = {
            "tiled_stream_subscribers": hub.subscribers,
            "tiled_stream_tails": hub.tails,
            "tiled_stream_records_read_total": hub.records,
            "tiled_stream_messages_sent_total": hub.messages,
            "tiled_stream_bytes_sent_total": hub.bytes,
            "tiled_stream_gaps_total": hub.gaps,
            "tiled_stream_slow_readers_total": hub.slow,
            "tiled_stream_event_loop_lag_seconds": self._heart.lag,
        } | self.persistence.figures()
        try:
            lag, of_log = await self._log.lag(), await self._log.figures()
            of_log |= {} if self._hooks is None else await self._hooks.figures()
        except Unavailable:  # the figures of this process can be told all the same
            return of_process
        return (
            of_process
            | of_log
            | {
                "tiled_stream_backlog_nodes": lag.nodes,
                "tiled_stream_backlog_records": lag.records,
                "tiled_stream_backlog_age_seconds": 0.0 if lag.oldest is None else max(0.0, time.time() - lag.oldest),
            }
        )


@contextlib.asynccontextmanager
async def assembled(
    settings: Settings, *, root_metadata: dict[str, Any] | None = None, root_specs: Sequence[Spec] | None = None
) -> AsyncIterator[Assembly]:
    """A server that persists; on leaving it is drained, finished and closed. Without a key in `settings`: one nobody knows."""
    settings = settings.with_key()  # an empty key would be known to everybody
    async with contextlib.AsyncExitStack() as stack:
        temporary = None
        if settings.temp:
            temporary = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tiled-stream-")))
        places = places_of(settings, temporary)
        engines = engines_of(settings, places, root_metadata=root_metadata, root_specs=root_specs)
        for engine in (engines.catalog, engines.log, *(engines.tables or ()), engines.arrays, engines.parts):
            if engine is not None:
                stack.push_async_callback(engine.close)
                await engine.open()
        identity = await engines.catalog.identity()
        await engines.log.bind(identity, _persisted(engines.catalog))
        mismatches = Mismatches()
        new = [await bind_storage(engines.catalog, name, s, identity, mismatches) for name, s in engines.storages.items()]
        hooks = _hooks(settings, places, engines, identity)
        if hooks is not None:
            stack.push_async_callback(hooks.close)
            await hooks.open()
        assembly = Assembly(settings, places, engines, mismatches=mismatches, hooks=hooks)
        stack.callback(assembly.promises.close)
        if isinstance(assembly.access, UserAccess):
            stack.push_async_callback(assembly.access.accounts.close)
            await assembly.access.accounts.open()
            await assembly.access.accounts.appoint([(a["provider"], a["id"]) for a in settings.admins], now=time.time())
            stack.push_async_callback(assembly.access.close)
            await assembly.access.open()
        stack.push_async_callback(assembly.files.close)
        stack.push_async_callback(assembly.finish)  # also if starting is cut short: the persister runs by then
        await assembly.start(is_new_storage=any(new))
        stack.push_async_callback(assembly.drain)
        yield assembly


def _persisted(catalog: Catalog) -> Persisted:
    """What a log that lost records asks the catalog."""

    async def persisted(nodes: Sequence[NodeId]) -> list[int]:
        return [0 if known is None else known.watermark for known in await catalog.reached(nodes)]

    return persisted


def _hooks(settings: Settings, places: Places, engines: Engines, identity: str) -> Hooks | None:
    """None: there are no webhooks."""
    if not settings.webhook_secret_keys:
        rules = (settings.webhook_blocked_networks, settings.webhook_allow_delivery_hosts)
        if any((*rules, settings.webhook_allow_http, settings.webhook_allow_private_addresses)):
            logger.warning(
                "There are rules for webhooks, but no webhooks: these need webhooks.secret_keys (openssl rand -hex 32)."
            )
        return None
    from .hooks import Hooks  # cryptography and httpcore, which nobody else needs

    return Hooks(settings, places, engines.catalog, identity=identity)


def _access(settings: Settings) -> Access | None:
    """Of many, if there are providers; None: of one key."""
    if not settings.providers:
        return None
    try:
        providers = providers_of(settings.providers)
    except AuthenticatorError as error:
        raise SettingsError(f"authentication.providers: {error}") from None
    tokens = Tokens(
        settings.secret_keys or (secrets.token_hex(32),),
        access_seconds=settings.access_token_seconds,
        refresh_seconds=settings.refresh_token_seconds,
    )
    # Accounts in memory are made anew at each start.
    accounts = Accounts(database_at(settings.accounts or "sqlite://"), init=settings.accounts_init or not settings.accounts)
    return UserAccess(accounts, tokens, providers, public=settings.public, session_seconds=settings.session_seconds)


def _edge_settings(settings: Settings) -> EdgeSettings:
    return EdgeSettings(
        api_key=settings.api_key,
        public=settings.public,
        root_path=settings.root_path,
        allow_origins=settings.allow_origins,
        response_bytesize_limit=settings.response_bytesize_limit,
        request_bytesize_limit=settings.request_bytesize_limit,
        send_timeout=settings.send_timeout_seconds,
        metrics=settings.metrics,
        expose_raw_assets=settings.expose_raw_assets,
    )


def _warm() -> None:
    """Import what is heavy and would else be imported by the first request that needs it."""
    import pyarrow

    logger.debug("pyarrow %s is loaded", pyarrow.__version__)


def _heard(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        logger.critical("The persister died; writes are kept in the log", exc_info=task.exception())
