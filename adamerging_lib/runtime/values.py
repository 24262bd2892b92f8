"""Values that people give, in notebooks and to the command: known names only, of the type they should have."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from .annotations import fits, joined, read, unquoted, written


def one_of(what: str, name: Any, known: Collection[Any]) -> None:
    """Raise ValueError unless a name is known: with what it names, the nearest known name, and all of them."""
    if name not in known:
        raise ValueError(f"{what} {name!r} is unknown: {nearest(name, known)}choose from {', '.join(map(str, known))}")


def nearest(name: Any, known: Iterable[Any]) -> str:
    """The question whether the most similar known name was meant, with a space behind it; empty where none is near."""
    near = difflib.get_close_matches(str(name), map(str, known), n=1, cutoff=0.4)
    return f"did you mean {near[0]!r}? " if near else ""


def few(names: Sequence[str], most: int = 5) -> str:
    """The first names and how many more there are, for messages; "none" where there are none."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more or "none"


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value is a number; True and False, which Python counts among the whole ones, are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


@dataclass(frozen=True)
class Parameter:
    """One parameter: its annotation (or its default's type), default and comment."""

    type: str
    default: object
    help: str = ""

    def allows(self, value: object) -> bool:
        """Whether ``value`` is of the type, elements included, or of one of a union's; see `annotations.fits`."""
        return (value is None and self.default is None) or fits(self.type, value)


def describe(known: Mapping[str, Parameter]) -> str:
    """The known parameters, one per line: name, type, default, comment."""
    return "\n".join(
        f"  {name}: {entry.type} = {entry.default!r}" + (f"  # {entry.help}" if entry.help else "")
        for name, entry in known.items()
    )


def check(owner: object, known: Mapping[str, Parameter], values: Mapping[str, object]) -> dict[str, object]:
    """``values`` if ``owner`` knows every name and type.

    Raises:
        ValueError: an unknown name (with the nearest known one) or a value of another type (with the expected one),
            each with the list of known parameters.
    """
    listing = f"Known parameters:\n{describe(known)}" if known else "It has no parameters."
    for name, value in values.items():
        if name not in known:
            hint = nearest(name, known).replace("did", "Did", 1)
            raise ValueError(f"{owner} has no parameter {name!r}. {hint}{listing}")
        if not known[name].allows(value):
            example = _example(name, known[name])
            raise ValueError(f"{owner}: {name}={value!r} should be of type {known[name].type}{example}. {listing}")
    return dict(values)


def parse(owner: object, known: Mapping[str, Parameter], pairs: Iterable[str]) -> dict[str, object]:
    """``["steps=1000", "tasks=digits,signs"]`` → typed values, checked.

    A text stays a text where the default is one, except for quotes around all of it; anything else is read as a Python
    literal (``1e-3``, ``None``, ``True``, ``[1, 2]``) whose texts need no quotes (``[digits,signs]``), and a list or a
    dictionary may also be written without its brackets. What a space took apart inside of one is put together again.

    Raises:
        ValueError: a pair without "=", a name given twice, or as in `check`.
    """
    values: dict[str, object] = {}
    for pair in joined(list(pairs)):
        name, equals, text = pair.partition("=")
        name = name.strip()
        if not equals:
            raise ValueError(f"Parameter {pair!r} should read name=value, a list as in name=first,second.")
        if name in values:
            raise ValueError(f"Parameter {name!r} is given twice: give it once.")
        values[name] = _value(text, known[name]) if name in known else text
    return check(owner, known, values)


def _value(text: str, parameter: Parameter) -> object:
    return unquoted(text) if isinstance(parameter.default, str) else read(parameter.type, text)


def _example(name: str, parameter: Parameter) -> str:
    """How a value is written, for a message; a comma before it."""
    value = parameter.default
    if value in (None, [], {}) or not parameter.allows(value):
        shapes = ({"key": "value"}, {"key": 1}, ["first", "second"], [1, 2])
        known = not fits(parameter.type, object())  # else everything fits
        value = next((shape for shape in shapes if known and fits(parameter.type, shape)), None)
    if value is None:
        return ""
    text = f"{name}={written(value).removeprefix('[').removesuffix(']')}"
    return f", such as {repr(text) if isinstance(value, dict) or ' ' in text else text}"
