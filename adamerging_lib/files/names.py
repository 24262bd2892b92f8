"""Names of tensors as a person changes them on the command line: a prefix that goes, tensors that are left out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fnmatch import translate

from ..runtime.values import few, nearest


def strip(names: Iterable[str], prefix: str) -> dict[str, str]:
    """Names without a prefix.

    Arguments:
        names: of the tensors of one checkpoint.
        prefix: what goes from the start of every name that has it, with or without its last dot: ``model.`` and
            ``model`` both make ``layers.0.weight`` of ``model.layers.0.weight``. Other names stay.

    Returns:
        New name → name as it was, in the order given.

    Raises:
        ValueError: no name begins with the prefix, nothing is left of a name, or two names become one.
    """
    names = list(names)
    start = f"{prefix}." if not prefix.endswith(".") and any(n.startswith(f"{prefix}.") for n in names) else prefix
    if not prefix or not any(name.startswith(start) for name in names):
        raise ValueError(f"no tensor's name begins with {prefix!r}; there are {few(names)}: name a prefix of these")
    stripped: dict[str, str] = {}
    for name in names:
        new = name.removeprefix(start)
        if not new:
            raise ValueError(f"nothing is left of the name {name!r} without {start!r}: name a shorter prefix")
        if new in stripped:
            raise ValueError(
                f"{name!r} and {stripped[new]!r} would both be {new!r} without {start!r}: leave one of them out first"
            )
        stripped[new] = name
    return stripped


def dropped(names: Iterable[str], patterns: Sequence[str]) -> set[str]:
    """The names that patterns name.

    Arguments:
        names: of the tensors of one checkpoint, or of several.
        patterns: whole names, in which ``*`` stands for any text, ``?`` for one letter and ``[ab]`` for one of these:
            ``*.position_ids``, ``classifier.*``.

    Returns:
        Every name that at least one pattern fits.

    Raises:
        ValueError: naming the pattern that fits no name.
    """
    names = list(names)
    found: set[str] = set()
    for pattern in patterns:
        fits = re.compile(translate(pattern)).match
        # A name may itself hold brackets: what is written out in full is meant.
        named = {name for name in names if name == pattern or fits(name)}
        if not named:
            raise ValueError(
                f"no tensor's name fits {pattern!r}: {nearest(pattern, names)}there are {few(names)}; "
                f"a pattern is a whole name, such as '*.{pattern.strip('*.') or 'bias'}'"
            )
        found |= named
    return found
