"""The edge as one ASGI application: routes, access, faults, and the shell around them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from litestar import Litestar, Router
from litestar.config.cors import CORSConfig
from litestar.datastructures import State

from . import (
    about,
    arrays,
    assets,
    auth,
    awkward,
    containers,
    docs,
    metadata,
    metrics,
    node_alias,
    page,
    ragged,
    revisions,
    search,
    stream,
    tables,
    validate,
    webhooks,
    zarr,
)
from .access import Access, guard
from .faults import handlers
from .params import API
from .services import Edge, EdgeSettings, Services
from .shell import Shell

__all__ = ["create_app"]

Hook = Callable[[], Awaitable[None]]


def create_app(
    services: Services,
    settings: EdgeSettings,
    *,
    access: Access | None = None,
    on_startup: Sequence[Hook] = (),
    on_shutdown: Sequence[Hook] = (),
) -> Shell:
    """The ASGI application over these services. Without `access`: that of the one key in the settings."""
    edge = Edge(services, settings)
    access = access or Access(settings.api_key, public=settings.public)
    figures = metrics.Metrics(edge) if settings.metrics else None
    api_routes: list[Any] = [
        *about.API_ROUTES,
        *metadata.ROUTES,
        *(auth.ROUTES if access.is_multi_user else ()),
        *revisions.ROUTES,
        *assets.ROUTES,
        *search.ROUTES,
        *arrays.ROUTES,
        *tables.ROUTES,
        *ragged.ROUTES,
        *awkward.ROUTES,
        *containers.ROUTES,
        *node_alias.ROUTES,
        *stream.ROUTES,
        *metrics.ROUTES,
        *validate.ROUTES,
        *(webhooks.ROUTES if services.webhooks is not None else ()),
    ]
    application = Litestar(
        route_handlers=[
            Router(API, route_handlers=api_routes, before_request=guard),
            Router("/zarr", route_handlers=zarr.ROUTES, before_request=guard),
            Router("/custom", route_handlers=validate.ROUTES, before_request=guard),
            *about.ROOT_ROUTES,
            *page.ROUTES,
            *docs.ROUTES,
        ],
        exception_handlers=handlers(),
        cors_config=_cors(settings),
        on_startup=list(on_startup),
        on_shutdown=list(on_shutdown),
        openapi_config=docs.openapi_config(has_accounts=access.is_multi_user),
        request_max_body_size=settings.request_bytesize_limit,
        state=State({"edge": edge, "access": access, "metrics": figures}),
        logging_config=None,
        debug=False,
    )
    return Shell(
        application,
        streams=stream.Streams(edge, access),
        access=access,
        metrics=figures,
        origins=settings.allow_origins,
        body_limit=settings.request_bytesize_limit,
    )


def _cors(settings: EdgeSettings) -> CORSConfig | None:
    if not settings.allow_origins:
        return None
    return CORSConfig(
        allow_origins=list(settings.allow_origins),
        allow_credentials=True,
        expose_headers=["X-Tiled-Request-ID"],
    )
