"""Webhooks: who is told of what happens at a node and below it. These routes exist only where webhooks are configured."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import orjson
from litestar import Request, delete, get, post
from litestar.response.base import ASGIResponse

from ..domain.errors import Malformed, NotFound, NotSupported
from ..domain.nodes import NodeId
from ..webhooks.model import Delivery, Webhook
from ..webhooks.registry import Registry
from .params import Query, keys_of
from .services import edge_of

__all__ = ["ROUTES"]

Connection = Request[Any, Any, Any]

_READ = ("read:webhooks",)
_WRITE = ("write:webhooks",)
_TARGET = ["/webhooks/target", "/webhooks/target/{path:path}"]
_HISTORY = 50
_MAX_HISTORY = 1000


class _Wanted(msgspec.Struct):
    url: str
    secret: str | None = None
    events: tuple[str, ...] | None = None


@post(_TARGET, opt={"scopes": _WRITE}, status_code=200)
async def post_webhook(request: Connection) -> ASGIResponse:
    """Tell a URL of what happens at the node at `path` and below it."""
    try:
        wanted = msgspec.convert(orjson.loads(await request.body()), _Wanted)
    except (orjson.JSONDecodeError, msgspec.ValidationError) as error:
        raise Malformed(f"The body must be a JSON object with 'url', and perhaps 'secret' and 'events': {error}.") from None
    chain = await _chain(request)
    return _json(_told(await _registry(request).register(chain, wanted.url, secret=wanted.secret, events=wanted.events)))


@get(_TARGET, opt={"scopes": _READ})
async def get_webhooks(request: Connection) -> ASGIResponse:
    """What is registered on the node at `path`."""
    chain = await _chain(request)
    return _json([_told(webhook) for webhook in await _registry(request).of_node(chain[-1])])


@delete("/webhooks/{id:str}", opt={"scopes": _WRITE}, status_code=200)
async def delete_webhook(request: Connection) -> ASGIResponse:
    """Tell it nothing more, and forget its history."""
    id = _id(request)
    await _registry(request).remove(id)
    return _json({"deleted": id})


@get("/webhooks/history/{id:str}", opt={"scopes": _READ})
async def get_history(request: Connection) -> ASGIResponse:
    """What was sent to it and what became of it, newest first."""
    limit = Query(request.scope).integer("limit", _HISTORY, low=1, high=_MAX_HISTORY)
    assert limit is not None
    return _json([_delivered(delivery) for delivery in await _registry(request).history(_id(request), limit=limit)])


def _registry(request: Connection) -> Registry:
    registry = edge_of(request).services.webhooks
    assert registry is not None  # else the routes would not be there
    return registry


def _id(request: Connection) -> int:
    text: str = request.path_params["id"]
    if not (text.isascii() and text.isdecimal() and len(text) < 16):
        raise NotFound(f"There is no webhook {text!r}; their ids are numbers.")
    return int(text)


async def _chain(request: Connection) -> list[NodeId]:
    """Ids from the top to the node that the request is about."""
    edge, keys = edge_of(request), keys_of(request)
    found = [await edge.browse.resolve(keys[:depth]) for depth in range(len(keys) + 1)]
    at = found[-1]
    if at.is_above:
        raise NotSupported(f"/{'/'.join(keys)} lies above what is mounted; nothing happens there. Register on what is mounted.")
    if at.column is not None or at.inside:
        raise NotSupported(
            f"{keys[-1]!r} lies inside of a table or a file, of which nothing is told; register on the node itself."
        )
    return [each.node.id for each in found if not each.is_above]


def _told(webhook: Webhook) -> dict[str, Any]:
    return {
        "id": webhook.id,
        "url": webhook.url,
        "events": None if webhook.events is None else list(webhook.events),
        "active": True,
        "time_created": _time(webhook.created),
    }


def _delivered(delivery: Delivery) -> dict[str, Any]:
    return {
        "id": delivery.id,
        "webhook_id": delivery.webhook,
        "event_type": delivery.kind,
        "payload": orjson.Fragment(delivery.payload),
        "status_code": delivery.status_code,
        "attempts": delivery.attempts,
        "outcome": delivery.outcome,
        "error_detail": delivery.error,
        "time_created": _time(delivery.created),
        "delivered_at": None if delivery.delivered is None else _time(delivery.delivered),
    }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def _json(content: Any) -> ASGIResponse:
    return ASGIResponse(body=orjson.dumps(content), media_type="application/json")


ROUTES = [post_webhook, get_webhooks, delete_webhook, get_history]
