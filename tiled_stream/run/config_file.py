"""A configuration file, or a directory of them, as one mapping: found, read, merged, and its variables filled in.

What must stay true: nothing is said twice without a complaint, and no error shows a value, for it may be a secret. What the keys
mean is told in `config_keys.py` and `config.py`.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import yaml

from ..domain.uris import redacted
from .settings import SettingsError

__all__ = ["ConfigFile", "read_config"]

#: Names the file to read, if the command line does not; without it, the file below.
_VARIABLE = "TILED_CONFIG"
_DEFAULT = Path("config.yml")
_SUFFIXES = (".yml", ".yaml")
#: Lists that may be spread over the files of a directory; any other key stands in one of them.
_GATHERED = ("allow_origins", "specs", "trees")
#: `$NAME`, `${NAME}`, and a `${` that nobody closed.
_REFERENCE = re.compile(r"\$(?:\{(?P<braced>[^}]*)(?P<end>\}?)|(?P<bare>[A-Za-z_][A-Za-z0-9_]*))")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: Parts of the names of keys that hold secrets.
_SECRET = ("key", "password", "secret", "token")
#: Deeper than any configuration; a YAML alias that contains itself has no end.
_MAX_DEPTH = 50
#: What a whole number may be, here as in JSON's parsers.
_NUMBERS = range(-(1 << 63), 1 << 64)


class ConfigFile(msgspec.Struct, frozen=True):
    """What was read. `path` is the file or directory as it was named; `origins` tells which file a top-level key stands in."""

    path: str
    values: dict[str, Any]
    origins: dict[str, str]

    def wrong(self, key: str, why: str, *, code: int = 1) -> SettingsError:
        """The error that says where `key` (a dotted path) stands and what is wrong with it."""
        return SettingsError(f"{self.named(key)}: {key}: {why}", code=code)

    def named(self, key: str) -> str:
        """The file that holds `key`."""
        return self.origins.get(_top(key), self.path)


def read_config(path: Path | None, environ: Mapping[str, str]) -> ConfigFile:
    """The configuration at `path`, or where ``TILED_CONFIG`` says, or ``./config.yml``; variables come from `environ`.

    The ``.yml`` and ``.yaml`` files of a directory are merged, in the order of their names. `SettingsError` for what cannot be
    read, is no mapping, is said twice, or names a variable that is not set.
    """
    path = path or Path(environ.get(_VARIABLE) or _DEFAULT)
    merged = _merged(_files(path), str(path))
    return msgspec.structs.replace(merged, values={k: _filled(v, k, merged, environ) for k, v in merged.values.items()})


def _files(path: Path) -> list[Path]:
    try:
        if not path.is_dir():
            return [path]
        found = sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES and file.is_file())
    except OSError as error:
        raise _unreadable(path, error) from None
    if not found:
        raise SettingsError(f"{path} holds no configuration: no file in it ends in {' or '.join(_SUFFIXES)}.")
    return found


def _merged(files: list[Path], path: str) -> ConfigFile:
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for file in files:
        for key, value in _read(file).items():
            if key not in values:
                values[key], origins[key] = value, str(file)
            elif key in _GATHERED and isinstance(value, list) and isinstance(values[key], list):
                values[key] = values[key] + value
                origins[key] += f", {file}"
            else:
                raise SettingsError(f"{file}: {key}: stands in {origins[key]} already; keep one of them.")
    return ConfigFile(path, values, origins)


def _read(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text(encoding="utf-8")
        _check_keys(yaml.compose(text, Loader=yaml.SafeLoader), set())
        content = yaml.safe_load(text)
    except OSError as error:
        raise _unreadable(file, error) from None
    except UnicodeDecodeError:
        raise SettingsError(f"{file} is not written in UTF-8; save it as UTF-8.") from None
    except _Faulty as error:
        raise SettingsError(f"{file}: {error}") from None
    except yaml.MarkedYAMLError as error:
        raise SettingsError(f"{file}: {_place(error.problem_mark)}{_problem(error)}.") from None
    except yaml.YAMLError:
        raise SettingsError(f"{file} holds characters that YAML does not allow.") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise SettingsError(f"{file} must hold keys and values, such as 'port: 8000' with a space after the colon.")
    return content


def _unreadable(path: Path, error: OSError) -> SettingsError:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return SettingsError(f"{path}: there is no such file; name one, set {_VARIABLE}, or put one at ./{_DEFAULT}.")
    return SettingsError(f"{path} cannot be read: {error.strerror}.")


class _Faulty(Exception):
    """What YAML would let pass and we do not."""


def _check_keys(node: Any, seen: set[int]) -> None:
    """A key that stands twice in one mapping is an error, not a silent choice. `seen`: aliases lead to the same nodes again."""
    if id(node) in seen or not isinstance(node, yaml.CollectionNode):
        return
    seen.add(id(node))
    names: set[str] = set()
    for entry in node.value:
        if isinstance(node, yaml.MappingNode):
            name, entry = entry
            _check_key(name, names)
        _check_keys(entry, seen)


def _check_key(name: Any, names: set[str]) -> None:
    if name.tag == "tag:yaml.org,2002:merge":
        return
    if name.tag != "tag:yaml.org,2002:str":
        raise _Faulty(f"{_place(name.start_mark)}a key must be text; put it in quotes.")
    if name.value in names:
        raise _Faulty(f"{_place(name.start_mark)}the key {_shown(name.value)} stands here a second time; keep one of them.")
    names.add(name.value)


def _place(mark: Any) -> str:
    return "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "


def _problem(error: yaml.MarkedYAMLError) -> str:
    """What the parser says, unless it quotes the file: that may be a part of a secret."""
    said = error.problem or ""
    hint = "put texts with special characters in quotes, and indent with spaces"
    return f"this is not YAML; {hint}" if not said or "'" in said or '"' in said else f"{said}; {hint}"


def _top(key: str) -> str:
    """The first part of a dotted path."""
    return re.split(r"[.\[]", key)[0]


def _shown(key: str) -> str:
    """A key as an error may show it: `password:secret`, with the space forgotten, is a key for YAML."""
    return key.partition(":")[0]


def _filled(value: Any, key: str, file: ConfigFile, environ: Mapping[str, str], depth: int = 0) -> Any:
    """`value` with the variables in its texts replaced, at any depth; keys are left as they are."""
    if depth > _MAX_DEPTH:
        raise file.wrong(_top(key), f"is nested more than {_MAX_DEPTH} levels deep.")
    if isinstance(value, dict):
        return {k: _filled(v, f"{key}.{_shown(k)}", file, environ, depth + 1) for k, v in value.items()}
    if isinstance(value, list):
        return [_filled(v, f"{key}[{i}]", file, environ, depth + 1) for i, v in enumerate(value)]
    if isinstance(value, str):
        return _REFERENCE.sub(lambda match: _variable(match, key, file, environ), value)
    if isinstance(value, datetime.date):
        raise file.wrong(key, "this is read as a date; put it in quotes to have it as text.")
    if isinstance(value, int) and value not in _NUMBERS:
        raise file.wrong(key, "this number has too many digits.")
    if value is not None and not isinstance(value, bool | int | float):
        raise file.wrong(key, "only texts, numbers, true, false, lists and mappings are understood here.")
    return value


def _variable(match: re.Match[str], key: str, file: ConfigFile, environ: Mapping[str, str]) -> str:
    """The value of a variable. The error does not name what may be a part of a password with a dollar sign in it."""
    name = match["bare"] or match["braced"] or ""
    if match["braced"] is not None and not (match["end"] and _NAME.fullmatch(name)):
        raise file.wrong(key, "a variable is written ${NAME}, with letters, digits and _ between the braces.")
    if name in environ:
        return environ[name]
    text = match.string
    is_secret = any(part in key.lower() for part in _SECRET) or name not in redacted(text)
    is_meant = match["braced"] is not None or match[0] == text or not is_secret
    called = name if is_meant else "after a '$' in this text"
    raise file.wrong(
        key, f"the environment variable {called} is not set; set it (a text with a '$' of its own comes in by one, too)."
    )
