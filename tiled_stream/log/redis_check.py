"""Is this Redis fit to hold acknowledged writes? Asked once, at the start; the answer names the setting and the cure."""

from __future__ import annotations

from typing import Any

from ..domain.errors import Unavailable
from .redis_link import Link

__all__ = ["check", "figures"]

_OLDEST = (7, 0)


async def check(link: Link, *, strict: bool, synced: bool) -> list[str]:
    """What to warn of, in sentences. With `strict`, `Unavailable` instead; also for a server that is too old, or cannot sync."""
    info = await _info(link)
    version = tuple(int(part) for part in info.get("redis_version", "0").split(".")[:2])
    if version < _OLDEST:
        raise Unavailable(f"Redis {info.get('redis_version')} is too old for the log: it takes 7.0 or later, or Valkey.")
    warnings = []
    if info.get("aof_enabled") != "1":
        warnings.append(
            "Redis keeps no append-only file: what it has acknowledged is lost when it stops. Set 'appendonly yes' and "
            "'appendfsync everysec'."
        )
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        warnings.append(
            f"Redis may evict what it has acknowledged (maxmemory-policy {policy}). Set 'maxmemory-policy noeviction': a full "
            "Redis then refuses writes, and nothing is lost."
        )
    if warnings and strict:
        raise Unavailable(" ".join(warnings) + " (cache_strict asks for this.)")
    if synced:
        try:
            await link.ask("WAITAOF", 0, 0, 100)
            if info.get("aof_enabled") != "1":
                raise Unavailable("there is no append-only file")
        except Unavailable as error:
            raise Unavailable(
                "log_sync is 'full', but this Redis cannot tell when a write is on disk: that takes WAITAOF (Redis 7.2 or later, "
                f"or Valkey) and 'appendonly yes'. It says: {error}"
            ) from error
    return warnings


async def figures(link: Link) -> dict[str, float]:
    """Bytes that Redis uses, and may use (0: no limit)."""
    info = await _info(link)
    return {name: float(info.get(name, "0")) for name in ("used_memory", "maxmemory")}


async def _info(link: Link) -> dict[str, str]:
    answers: list[Any] = await link.ask_all([("INFO", section) for section in ("server", "persistence", "memory")])
    pairs = (line.partition(":") for answer in answers for line in answer.decode().splitlines())
    return {name: value for name, _, value in pairs}
