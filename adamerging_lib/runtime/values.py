"""Values that people give, in notebooks and to the command: known names only, of the type they should have."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

_KINDS = {"bool": bool, "int": int, "float": (int, float), "str": str, "list": (list, tuple), "dict": dict}


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
        """Whether ``value`` is of the type, or of one of a union's; an int passes for a float, never a bool."""
        kinds = [part.strip().partition("[")[0] for part in self.type.split("|")]
        if value is None:
            return self.default is None or "None" in kinds
        if any(kind not in _KINDS for kind in kinds if kind != "None"):
            return True  # what a literal cannot be, or no annotation: left to whoever takes the value
        if isinstance(value, bool):
            return "bool" in kinds
        return any(isinstance(value, _KINDS[kind]) for kind in kinds if kind not in ("None", "bool"))


def describe(known: Mapping[str, Parameter]) -> str:
    """The known parameters, one a line: name, type, default, comment."""
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
            raise ValueError(f"{owner}: {name}={value!r} should be of type {known[name].type}. {listing}")
    return dict(values)


def parse(owner: object, known: Mapping[str, Parameter], pairs: Iterable[str]) -> dict[str, object]:
    """``["steps=1000", "tasks=digits,signs"]`` → typed values, checked.

    A text stays a text where the default is one; anything else is read as a Python literal (``1e-3``, ``None``,
    ``True``, ``[1, 2]``), and a list may also be written with commas only.

    Raises:
        ValueError: a pair without "=", a name given twice, or as in `check`.
    """
    values: dict[str, object] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise ValueError(f"Parameter {pair!r} should read name=value.")
        if name in values:
            raise ValueError(f"Parameter {name!r} is given twice: give it once.")
        values[name] = _value(text, known[name]) if name in known else text
    return check(owner, known, values)


def _value(text: str, parameter: Parameter) -> object:
    if isinstance(parameter.default, str):
        return text
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text.split(",") if isinstance(parameter.default, list) else text
    if isinstance(value, tuple) and isinstance(parameter.default, list):
        return list(value)
    return value if parameter.allows(value) or not parameter.allows(text) else text
