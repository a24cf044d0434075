"""The API's own description: `/openapi.json`, and a page at `/docs` that needs nothing from elsewhere.

Control rooms have no internet: no script, no font and no style is loaded.
"""

from __future__ import annotations

from html import escape
from typing import Any

import orjson
from litestar import MediaType, Request, get
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, OpenAPIRenderPlugin
from litestar.openapi.spec import Components, OAuthFlow, OAuthFlows, SecurityScheme
from litestar.response.base import ASGIResponse

from .._version import __version__
from ..accounts.model import ALL_SCOPES
from .described import described
from .params import API

__all__ = ["ROUTES", "DocsPage", "openapi_config"]

_STYLE = """body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem}
table{border-collapse:collapse;width:100%}td{border-top:1px solid #8884;padding:.3rem .6rem;vertical-align:top}
td:first-child{font-weight:600;width:5rem}code{font-size:14px}"""


class DocsJson(JsonRenderPlugin):
    """The schema, with the parameters of queries."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        """As JSON."""
        return orjson.dumps(described(openapi_schema))


class DocsPage(OpenAPIRenderPlugin):
    """All routes on one page."""

    def __init__(self) -> None:
        super().__init__(path="/", media_type=MediaType.HTML)

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        """The page, from the schema."""
        rows = [
            f"<tr><td>{method.upper()}</td><td><code>{escape(path)}</code></td><td>{escape(about.get('description', ''))}</td>"
            for path, methods in sorted(openapi_schema.get("paths", {}).items())
            for method, about in methods.items()
            if isinstance(about, dict)
        ]
        page = f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>tiled_stream API</title><style>{_STYLE}</style>
<h1>tiled_stream {escape(__version__)}</h1><p>The same for programs: <a href="openapi.json">openapi.json</a>.
Live updates: a WebSocket at <code>/api/v1/stream/single/{{path}}</code>.</p><table>{"".join(rows)}</table></html>"""
        return page.encode()


@get("/openapi.json", opt={"scopes": ()}, include_in_schema=False)
async def get_openapi(request: Request[Any, Any, Any]) -> ASGIResponse:
    """The schema, for programs."""
    body = orjson.dumps(described(request.app.openapi_schema.to_schema()))
    return ASGIResponse(body=body, media_type="application/json")


def openapi_config(*, has_accounts: bool = False) -> OpenAPIConfig:
    """The schema is built when it is first asked for, so it costs nothing at the start."""
    schemes = {
        "ApiKey": SecurityScheme(type="apiKey", name="Authorization", security_scheme_in="header", description="Apikey KEY")
    }
    if has_accounts:
        login = OAuthFlow(token_url=f"{API}/auth/provider/{{provider}}/token", scopes=dict.fromkeys(sorted(ALL_SCOPES), ""))
        schemes["OAuth2PasswordBearer"] = SecurityScheme(type="oauth2", flows=OAuthFlows(password=login))
    return OpenAPIConfig(
        title="tiled_stream",
        version=__version__,
        path="/docs",
        components=Components(security_schemes={**schemes}),
        render_plugins=[DocsPage(), DocsJson()],
        use_handler_docstrings=True,
    )


ROUTES = [get_openapi]
