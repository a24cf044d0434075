"""How the command line says that something cannot be: one sentence, and the exit status that goes with it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import typer

from ..domain.errors import Refused, Unavailable
from .settings import SettingsError

__all__ = ["told"]


@contextlib.contextmanager
def told(*, unavailable: int = 3) -> Iterator[None]:
    """`unavailable`: the status if something that is needed is not there."""
    try:
        yield
    except SettingsError as error:
        typer.echo(f"tiled-stream: {error}", err=True)
        raise typer.Exit(error.code) from None
    except (Unavailable, Refused) as error:
        typer.echo(f"tiled-stream: {error}", err=True)
        raise typer.Exit(unavailable) from None
