"""What a configuration file means: from its keys to `Settings`.

What must stay true: a key counts or is refused, never passed over in silence; what the command line says comes before the
environment, and that before the file. Reading is in `config_file.py`, the list of keys in `config_keys.py`.
"""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin

import msgspec

from .config_file import ConfigFile, read_config
from .config_keys import KEYS, SECTIONS, Key, Unfit
from .config_trees import Given, mounted
from .settings import ALIASES, ENVIRONMENT, Settings, SettingsError, from_env

__all__ = ["check_config", "settings_from_config"]

logger = logging.getLogger(__name__)

#: Together these say one thing: if one of them is set in a better place, the others in the file do not count.
_ONE_CHOICE = ({"catalog", "temp"}, {"cache", "cache_sentinels"})
#: How an error of `Settings` names a setting: as a flag, or in quotes.
_NAMED = re.compile(r"--(?P<flag>[a-z][a-z-]+)|(?<![\w-])(?P<short>-[rw])\b|'(?P<field>[a-z_]+)'")
_SHORT = {"-w": "write", "-r": "read"}
#: Words of people for the words of msgspec.
_WORDS = {
    "str": "text (if it looks like something else, put it in quotes)",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list, as in [one, two]",
    "object": "a mapping of keys to values",
    "null": "nothing",
}
_FOUND = _WORDS | {"str": "text", "array": "a list", "object": "a mapping", "bool": "true or false, yes or no"}
_TRUTH = {"yes": True, "on": True, "no": False, "off": False}


class _Told(NamedTuple):
    """A setting as the file has it, and the key that says so."""

    value: Any
    at: str


def settings_from_config(path: Path | None, environ: Mapping[str, str], **given: Any) -> Settings:
    """Settings from the file or directory at `path` (else ``TILED_CONFIG``, else ``./config.yml``), the environment and `given`.

    What is `given` comes before the environment, and that before the file. `SettingsError` names the file, the key and the cure,
    and never shows the value of a secret. Keys that are accepted without effect are named in one line of the log.
    """
    file = read_config(path, environ)
    keys = list(_keys_of(file))
    told = _told(file, keys)
    better = _set_in(environ) | given.keys()
    for choice in _ONE_CHOICE:
        if choice & better:
            told = {name: said for name, said in told.items() if name not in choice}
    told = {name: said for name, said in told.items() if name not in better}
    if not {"catalog", "temp"} & (better | {name for name, said in told.items() if said.value}):
        raise file.wrong("catalog.uri", "is missing: where the catalog is, a file such as ./catalog.db or a postgresql:// URI.")
    try:
        settings = from_env(environ, **({name: said.value for name, said in told.items()} | _alone(given)))
    except SettingsError as error:
        raise SettingsError(_in_words_of_the_file(str(error), file, told, better), code=error.code) from None
    _say(file, keys, told, settings)
    return settings


def check_config(path: Path | None, environ: Mapping[str, str]) -> None:
    """`SettingsError` if a server could not be started with this configuration. Nothing is opened or made."""
    settings_from_config(path, environ)


def _keys_of(file: ConfigFile) -> Iterator[Given]:
    """The keys that are given, each with a value of its type."""
    _check_trees(file)
    for key, at, value in _walk(file, file.values, "", ""):
        if value is not None:
            yield Given(key, at, _converted(file, key, at, value))


def _check_trees(file: ConfigFile) -> None:
    trees = file.values.get("trees")
    if trees and file.values.get("catalog") is not None:
        raise file.wrong("trees", f"'catalog' (in {file.named('catalog')}) says the same in a simpler way; keep one of the two.")


def _walk(file: ConfigFile, value: Any, section: str, at: str) -> Iterator[tuple[Key, str, Any]]:
    """The keys below a section; `at` is where it stands, which is elsewhere if it is known under two names."""
    if value is None:
        return
    if not isinstance(value, dict):
        raise file.wrong(at, "this must be a mapping of keys to values, indented below it.")
    for name, inner in value.items():
        path, place = (f"{section}.{name}", f"{at}.{name}") if section else (name, name)
        if path in KEYS:
            yield KEYS[path], place, inner
        elif path in SECTIONS:
            yield from _walk(file, inner, SECTIONS[path], place)
        elif f"{path}[]" in SECTIONS:
            yield from _walk_list(file, inner, f"{path}[]", place)
        else:
            raise _unknown(file, section, at, name)


def _walk_list(file: ConfigFile, value: Any, section: str, at: str) -> Iterator[tuple[Key, str, Any]]:
    if value is not None and not isinstance(value, list):
        raise file.wrong(at, "this must be a list: one entry a line, each after a '- '.")
    for i, entry in enumerate(value or ()):
        yield from _walk(file, entry, section, f"{at}[{i}]")


def _unknown(file: ConfigFile, section: str, at: str, name: str) -> SettingsError:
    """With the nearest key that there is: beside it, or of the same name in another section."""
    shown, colon, _ = name.partition(":")  # `password:secret` is a key for YAML, and the half of it a secret
    here = sorted({path.removeprefix(f"{section}.").split(".")[0] for path in [*KEYS, *SECTIONS] if _is_in(path, section)})
    near = [f"{at}.{key}" if at else key for key in difflib.get_close_matches(shown, here, 1)]
    near = near or [path for path in KEYS if path.rpartition(".")[2] == shown]
    if colon:
        hint = "a space is missing after the colon"
    else:
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(here)}"
    return file.wrong(f"{at}.{shown}" if at else shown, f"there is no such key; {hint}{'' if hint.endswith('?') else '.'}")


def _is_in(path: str, section: str) -> bool:
    return bool(path) and "[]" not in path.removeprefix(section) and (not section or path.startswith(f"{section}."))


def _converted(file: ConfigFile, key: Key, at: str, value: Any) -> Any:
    """`value` as the type of the key; what came from a variable is text and is read as what it should be."""
    if key.kind is bool and isinstance(value, str):
        value = _TRUTH.get(value.strip().lower(), value)
    try:
        return msgspec.convert(value, key.kind, strict=False)
    except msgspec.ValidationError as error:
        where, why = _in_words(error, key.kind)
        raise file.wrong(at + where, why) from None


def _in_words(error: msgspec.ValidationError, kind: Any) -> tuple[str, str]:
    """Where inside the value, and what is wrong there. No value is shown."""
    said, _, where = str(error).partition(" - at ")
    inside = re.match(r"`\$(.*)`$", where)
    place = inside[1].replace("[...]", "") if inside else ""
    if get_origin(kind) is Literal:
        return place, f"this must be one of {', '.join(map(str, get_args(kind)))}."
    types = re.fullmatch(r"Expected `(.+)`, got `(.+)`", said)
    if types is None:
        return place, f"{said}."
    wanted = " or ".join(_WORDS.get(name, name) for name in types[1].split(" | ") if name != "null")
    return place, f"this must be {wanted}, not {_FOUND.get(types[2], types[2])}."


def _told(file: ConfigFile, keys: Sequence[Given]) -> dict[str, _Told]:
    """What the file says of each setting. What is asked for and cannot be had is an error."""
    told: dict[str, _Told] = {}
    keys, mounts, place = mounted(file, keys)
    if mounts:
        told["mounts"] = _Told(mounts, place)
    for key, at, value in keys:
        if key.use == "refused" and value not in key.asks_nothing:
            raise file.wrong(at, key.why)
        try:
            taken = key.take(value)
        except Unfit as error:
            raise file.wrong(at + error.at, str(error), code=error.code) from None
        if not key.setting:
            continue
        if key.setting in told:
            raise file.wrong(at, f"says the same as {told[key.setting].at}; keep one of the two.")
        told[key.setting] = _Told(taken, at)
    _check_streaming(file, {given.key.path: given.value for given in keys})
    if "cache_sentinels" in told and "cache" not in told:
        told["cache"] = _Told("sentinel", told["cache_sentinels"].at)
    return told


def _check_streaming(file: ConfigFile, values: Mapping[str, Any]) -> None:
    """A URI or Sentinels. What is for Sentinels must not be passed over beside a URI: a connection would not be what it seems."""
    if values.get("streaming_cache.uri") is None:
        return
    for name, cure in {
        "sentinels": "keep one of the two",
        "service_name": "it belongs to sentinels; take it out",
        "password": "put it into the URI, as in redis://:PASSWORD@HOST:6379",
        "ssl": "for TLS, let the URI begin with rediss://",
    }.items():
        if values.get(f"streaming_cache.{name}"):
            raise file.wrong(f"streaming_cache.{name}", f"cannot stand beside streaming_cache.uri: {cure}.")


def _set_in(environ: Mapping[str, str]) -> set[str]:
    """The settings that the environment has a word on."""
    own = {name for name in Settings.__struct_fields__ if f"{ENVIRONMENT}{name.upper()}" in environ}
    return own | {setting for name, setting in ALIASES.items() if name in environ}


def _alone(given: Mapping[str, Any]) -> dict[str, Any]:
    """`given`, so that what the environment says of the same choice does not count."""
    neutral: dict[str, Any] = {}
    if given.keys() & {"catalog", "temp"}:
        neutral |= {"catalog": None, "temp": False}
    if "cache" in given:
        neutral |= {"cache_sentinels": ()}
    return neutral | dict(given)


def _in_words_of_the_file(message: str, file: ConfigFile, told: Mapping[str, _Told], better: set[str]) -> str:
    """`message`, which names settings, with the keys that they are in the file."""
    keys: dict[str, str] = {}
    for match in _NAMED.finditer(message):
        name = match["field"] or _SHORT.get(match["short"]) or match["flag"].replace("-", "_")
        if name in Settings.__struct_fields__ and name not in better:
            usual = next(key.path for key in KEYS.values() if key.setting == name)
            keys[match[0]] = told[name].at if name in told else usual
    where = ", ".join(f"{shown} is the key {at} of {file.named(at)}" for shown, at in keys.items())
    return f"{message} ({where}.)" if where else message


def _say(file: ConfigFile, keys: Sequence[Given], told: Mapping[str, _Told], settings: Settings) -> None:
    """One line of what has no effect, and one of what may surprise. Warnings: logging may not be set up yet."""
    idle = [at for key, at, _ in keys if key.use == "harmless"]
    if idle:
        logger.warning("%s: accepted and without effect in this server: %s", file.path, ", ".join(idle))
    if "cache" in told and settings.cache == "memory" and not settings.temp:
        logger.warning(
            "%s: %s keeps the log in memory: if the process is killed, the last acknowledged writes are lost; take the key out "
            "to have the log in a file beside the catalog",
            file.path,
            told["cache"].at,
        )
