"""Types as annotations write them: whether a value is of one, and what a text typed by a person means in one."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

_LISTS = {"list", "List", "Sequence", "Collection", "Iterable", "tuple", "Tuple"}
_DICTS = {"dict", "Dict", "Mapping", "MutableMapping"}
_SCALARS: Mapping[str, Callable[[Any], bool]] = {
    "None": lambda value: value is None,
    "bool": lambda value: isinstance(value, bool),
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "float": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
    "str": lambda value: isinstance(value, str),
    "Path": lambda value: isinstance(value, (str, PurePath)),
}
_QUOTED = r""""(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'"""
_PIECE = re.compile(
    rf"(?P<quoted>{_QUOTED})|(?P<mark>[\[\](){{}},:])|(?P<bare>[^\[\](){{}},:\"']+)|(?P<no>.)", re.DOTALL
)
_NO_LITERAL = (ValueError, SyntaxError, TypeError, AttributeError, RecursionError, MemoryError)
_WORD = re.compile(rf"(?:{_QUOTED}|\S)+")


def fits(annotation: object, value: object) -> bool:
    """Whether a value is of a type, down to the elements of lists and dictionaries; an int passes for a float.

    Arguments:
        annotation: such as ``list[str]`` or ``"float | Mapping[str, float] | None"``. What it names beside Python's
            plain types is left to the function that takes the value: everything fits.
        value: the value.
    """
    return _fits(_tree(annotation), value)


def read(annotation: object, text: str) -> object:
    """What a text means in a type: a Python literal, in which texts need no quotes, since a shell takes them away.

    ``[a,b]`` may lose its brackets and ``{a:1}`` its braces where the type has room for a list or a dictionary.

    Arguments:
        annotation: the type.
        text: as typed.

    Returns:
        A value of the type where the text has such a reading; otherwise one that does not fit, see `fits`.
    """
    kinds = {_name(part) for part in _union(_tree(annotation))}
    readings = [text]
    if text.strip():
        readings += [f"[{text}]"] * bool(kinds & _LISTS) + [f"{{{text}}}"] * bool(kinds & _DICTS)
    values = [value for reading in readings for value in _literal(reading)]
    fitting = (value for value in [*values, text] if fits(annotation, value))
    return next(fitting, values[0] if values else text)


def unquoted(text: str) -> str:
    """A text without the quotes around all of it, if it has them."""
    return ast.literal_eval(text) if re.fullmatch(_QUOTED, text) else text


def written(value: object) -> str:
    """A value as a command line takes it, for a message: no quotes where `read` needs none, and no spaces."""
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{written(key)}:{written(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(written, value)) + "]"
    bare = isinstance(value, str) and _literal(f"[{value}]") == [[value]]
    return value if bare else repr(value)


def words(text: str) -> list[str]:
    """The words of a line, apart at spaces that no quotes hold; quotes stay."""
    return _WORD.findall(text)


def joined(parts: Sequence[str]) -> list[str]:
    """Words put together again that a space inside a list or a dictionary took apart: ``a=[1,`` and ``2]``."""
    found: list[str] = []
    for part in parts:
        if found and (_open(found[-1]) or (found[-1].endswith(",") and "=" not in part)):
            found[-1] += f" {part}"
        else:
            found.append(part)
    return found


def _open(text: str) -> bool:
    marks = [piece["mark"] for piece in _PIECE.finditer(text)]
    return sum(map(marks.count, "[({")) > sum(map(marks.count, "])}"))


def _literal(text: str) -> list[Any]:
    """The value that a text stands for, as a list of one; empty where it is not a literal."""
    parts, last = [], ""
    for piece in _PIECE.finditer(text):
        kind, part = piece.lastgroup, piece[0]
        if kind == "no" or (kind != "mark" and last not in ("", "mark") and part.strip()):
            return []  # a quote that is not closed, or two texts side by side, which Python would join
        if part.strip():
            parts.append(part if kind != "bare" else _bare(part.strip()))
            last = kind
    try:
        tree = ast.parse("".join(parts), mode="eval")
        keys = [list(map(ast.dump, node.keys)) for node in ast.walk(tree) if isinstance(node, ast.Dict)]
        return [_plain(ast.literal_eval(tree))] if all(len(set(k)) == len(k) for k in keys) else []
    except _NO_LITERAL:
        return []


def _bare(word: str) -> str:
    try:
        ast.literal_eval(word)
    except _NO_LITERAL:
        return repr(word)
    return word


def _plain(value: Any) -> Any:
    """Lists for tuples; a set is none of these, and TypeError."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, set):
        raise TypeError("a set has no order")
    return value


@functools.cache
def _tree(annotation: object) -> ast.expr | None:
    text = annotation.__name__ if type(annotation) is type else str(annotation)
    try:
        return ast.parse(text, mode="eval").body
    except SyntaxError:
        return None


def _union(node: ast.expr | None) -> list[ast.expr | None]:
    """The alternatives of a type."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return _union(_tree(node.value))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _union(node.left) + _union(node.right)
    if _name(node) in ("Optional", "Union") and _parts(node):
        none = [ast.Constant(None)] if _name(node) == "Optional" else []
        return [part for each in _parts(node) for part in _union(each)] + none
    return [node]


def _name(node: ast.expr | None) -> str | None:
    """``Mapping`` of ``Mapping[str, float]`` and of ``typing.Mapping``."""
    if isinstance(node, ast.Subscript):
        return _name(node.value)
    if isinstance(node, ast.Constant) and node.value is None:
        return "None"
    return getattr(node, "id", getattr(node, "attr", None))


def _parts(node: ast.expr | None) -> list[ast.expr]:
    """``str`` and ``float`` of ``Mapping[str, float]``."""
    inside = getattr(node, "slice", None)
    return inside.elts if isinstance(inside, ast.Tuple) else [] if inside is None else [inside]


def _fits(node: ast.expr | None, value: object) -> bool:
    alternatives = _union(node)
    if len(alternatives) > 1:
        return any(_fits(part, value) for part in alternatives)
    name, parts = _name(alternatives[0]), _parts(alternatives[0])
    if name in _SCALARS:
        return _SCALARS[name](value)
    if name == "Literal":
        return any((type(value), value) == (type(known), known) for known in map(ast.literal_eval, parts))
    if name in _DICTS:
        key, item = parts if len(parts) == 2 else (None, None)
        return isinstance(value, Mapping) and all(_fits(key, k) and _fits(item, v) for k, v in value.items())
    if name in _LISTS:
        if not isinstance(value, (list, tuple)):
            return False
        if name.lower() == "tuple" and parts and getattr(parts[-1], "value", None) is not ...:
            return len(parts) == len(value) and all(map(_fits, parts, value))
        return all(_fits(parts[0] if parts else None, element) for element in value)
    return True
