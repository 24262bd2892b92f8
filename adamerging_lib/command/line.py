"""What commands made with typer share: how they end, and values that typer has no words for."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import typer


def call(app: typer.Typer, name: str, arguments: Sequence[str] | None = None) -> int:
    """Run a command made with typer.

    Arguments:
        app: the command.
        name: how a user calls it.
        arguments: of the command line; default: of this process.

    Returns:
        Exit code: 0, 130 after an interruption, or 2 where the input must be mended first, which is said on stderr.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # formulas, on a terminal without their letters
    try:
        code = app(arguments, prog_name=name, standalone_mode=False) or 0
    except typer.TyperException as error:
        place = error.ctx.command_path if getattr(error, "ctx", None) else name
        print(f"{place}: {error.format_message()}\nSee: {place} --help", file=sys.stderr)
        return 2
    except (ValueError, OSError, MemoryError) as error:
        place = f"{name} {arguments[0]}" if len(app.registered_commands) > 1 else name
        print(f"{place}: {error}", file=sys.stderr)
        return 2
    if code == 130:
        print("\ninterrupted, nothing was written", file=sys.stderr)
    return code


def positive(text: str) -> int:
    """A number of 1 or more; BadParameter with the text where it is none."""
    if not text.isdecimal() or int(text) < 1:
        raise typer.BadParameter(f"{text!r} is not a number of 1, 2 or more")
    return int(text)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose names are all different; ValueError, where json would take the last."""
    names = [name for name, _ in pairs]
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise ValueError(f"{twice[0]!r} is given twice: give it once")
    return dict(pairs)


def json_object(text: str) -> dict[str, Any]:
    """A JSON object; BadParameter with the text where it is none."""
    try:
        value = json.loads(text, object_pairs_hook=_once)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not JSON ({error})") from error
    if not isinstance(value, dict):
        raise typer.BadParameter(f'{text!r} is not a JSON object, such as {{"steps": 1000}}')
    return value
