"""The edge as one ASGI application: routes, access, faults, and the shell around them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from litestar import Litestar, Router
from litestar.config.cors import CORSConfig
from litestar.datastructures import State
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, SwaggerRenderPlugin

from .._version import __version__
from . import about, arrays, containers, metadata, metrics, search, stream, tables, validate
from .access import Access, guard
from .faults import handlers
from .params import API
from .services import Edge, EdgeSettings, Services
from .shell import Shell

__all__ = ["create_app"]

Hook = Callable[[], Awaitable[None]]


def create_app(
    services: Services, settings: EdgeSettings, *, on_startup: Sequence[Hook] = (), on_shutdown: Sequence[Hook] = ()
) -> Shell:
    """The ASGI application over these services."""
    edge = Edge(services, settings)
    figures = metrics.Metrics(edge) if settings.metrics else None
    api_routes: list[Any] = [
        *about.API_ROUTES,
        *metadata.ROUTES,
        *search.ROUTES,
        *arrays.ROUTES,
        *tables.ROUTES,
        *containers.ROUTES,
        *stream.ROUTES,
        *metrics.ROUTES,
        *validate.ROUTES,
    ]
    application = Litestar(
        route_handlers=[
            Router(API, route_handlers=api_routes, guards=[guard]),
            Router("/custom", route_handlers=validate.ROUTES, guards=[guard]),
            *about.ROOT_ROUTES,
        ],
        exception_handlers=handlers(),
        cors_config=_cors(settings),
        on_startup=list(on_startup),
        on_shutdown=list(on_shutdown),
        openapi_config=OpenAPIConfig(
            title="tiled_stream",
            version=__version__,
            path="/docs",
            render_plugins=[SwaggerRenderPlugin(path="/"), JsonRenderPlugin(path="/openapi.json")],
        ),
        request_max_body_size=settings.request_bytesize_limit,
        state=State({"edge": edge, "access": Access(settings.api_key, public=settings.public), "metrics": figures}),
        logging_config=None,
        debug=False,
    )
    return Shell(application, figures)


def _cors(settings: EdgeSettings) -> CORSConfig | None:
    if not settings.allow_origins:
        return None
    return CORSConfig(
        allow_origins=list(settings.allow_origins),
        allow_credentials=True,
        expose_headers=["X-Tiled-Request-ID"],
    )
