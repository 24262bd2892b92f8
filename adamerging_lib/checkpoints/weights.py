"""Where in what torch.save kept the weights are: at the top, under a name, in a module, a list, or several of these."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..runtime.values import few, nearest
from ..state import CheckpointError
from .inert import Record, Stored
from .modules import is_module, open_module

_FIRST = ("state_dict", "model_state_dict", "model")  # where training checkpoints keep their weights
_MOST = 1_000_000  # tensors of a checkpoint; a dict that holds itself has no end
_DEEPEST = 1000
# What trainers keep tensors in beside weights, and numbers that they note as tensors.
_STATE = re.compile(
    r"(?i)(.*_)?(opt|optims?|optimi[sz]ers?|optimi[sz]er_\w+|(lr_)?sched(uler)?s?|(grad_)?scaler|amp|rng|rng_states?"
    r"|random_states?|callbacks?|loops|loss(es)?|criterion|metrics?|history)(_states?|_state_dicts?|_history)?"
)
_STATUS = re.compile(r"(?i)(.*_)?(epochs?|steps?|iter|iterations?|loss|best|acc\w*|score|lr|seed|time|samples)(_\w+)?")


@dataclass(frozen=True)
class Weights:
    """The weights of a checkpoint.

    Arguments:
        tensors: name → tensor.
        entries: names of what is in the file beside them.
        key: where they lie; empty for the top.
        modules: path → submodule, where they are those of a pickled module.
    """

    tensors: dict[str, Stored]
    entries: tuple[str, ...]
    key: str
    modules: dict[str, Record]


def find_weights(content: Any, owner: object, key: str | None = None) -> Weights:
    """The weights among what was saved.

    Those under ``state_dict``, ``model_state_dict`` or ``model`` come first; else those at the top; else those of the
    only entry that holds tensors and is not the state of an optimiser or of another part of a trainer.

    Arguments:
        content: what was saved.
        owner: for messages.
        key: the entry to take whole, dotted where entries lie within entries; ``.`` is the top.

    Raises:
        CheckpointError: where there are none, where several entries could be meant, or none is called ``key``.
    """
    if key is not None:
        return _whole(content, owner, key)
    counts, node, path, entries = _counts(content), content, [], []
    while True:
        own = [(name, child) for name, child in _children(node) if isinstance(child, Stored)]
        below = {
            name: child for name, child in _children(node)
            if not isinstance(child, Stored) and counts.get(id(child)) and not _is_state(name, child)
        }  # fmt: skip
        first = next((name for name in _FIRST if name in below), None) if not path else None
        if first is None and not below:
            break
        if all(_STATUS.fullmatch(name) and not _large(tensor) for name, tensor in own):
            own = []
        if first is None and (own or len(below) > 1):
            raise CheckpointError(_several(owner, len(own), {n: counts[id(child)] for n, child in below.items()}, path))
        down = next(iter(below)) if first is None else first
        entries += [name for name, _ in _children(node) if name != down]
        node = below[down]
        path.append(down)
    if not own:
        raise CheckpointError(_nothing(owner, content, counts))
    modules = _modules(node, owner)
    entries += [name for name, child in _children(node) if not isinstance(child, Stored)]
    return Weights(_unique(own, owner), tuple(entries), ".".join(path), modules)


def _large(tensor: Stored) -> bool:
    return max(tensor.shape, default=1) > 1


def _is_state(name: str, node: Any) -> bool:
    groups = isinstance(node, dict) and {"state", "param_groups"} <= node.keys()
    return groups or _STATE.fullmatch(name) is not None


def _children(node: Any) -> Iterator[tuple[str, Any]]:
    """(name, content) of what a container holds; nothing of anything else."""
    if isinstance(node, Record):
        if is_module(node):
            yield from open_module(node, "the checkpoint")[0].items()
            return
        held = (*node.attributes.items(), *node.entries.items(), *enumerate(node.items), *enumerate(node.given))
    elif isinstance(node, dict):
        held = node.items()
    elif type(node) in (list, tuple):
        held = enumerate(node)
    else:
        return
    for key, child in held:
        yield _label(key), child


def _label(key: Any) -> str:
    try:
        return str(key)
    except ValueError:  # whole numbers of thousands of digits
        return "a large number"


def _counts(content: Any) -> dict[int, int]:
    """Container (its id) → tensors below it, without recursion; what holds itself counts once."""
    found: dict[int, int] = {}
    waiting = [(content, False)]
    while waiting:
        node, seen = waiting.pop()
        if seen:
            below = (1 if isinstance(child, Stored) else found.get(id(child), 0) for _, child in _children(node))
            found[id(node)] = min(sum(below), _MOST)
        elif id(node) not in found and isinstance(node, (dict, list, tuple, Record)) and not isinstance(node, Stored):
            found[id(node)] = 0
            waiting.append((node, True))
            waiting += [(child, False) for _, child in _children(node)]
    return found


def _several(owner: object, own: int, below: dict[str, int], path: list[str]) -> str:
    there = [f"{name} ({_number(count)})" for name, count in below.items()]
    top = f"{_number(own)} at the top and more under " if own else "tensors under "
    where = f" in {'.'.join(path)!r}" if path else ""
    names = [".".join([*path, name]) for name in below]
    return (
        f"{owner} holds {top}{few(there, 8)}{where}: choose one with --key {names[0]} (in Python key={names[0]!r}), or "
        f"take all of them, under dotted names, with --key {'.'.join(path) or '.'}"
    )


def _number(count: int) -> str:
    return f"{count:,} tensor{'s' if count != 1 else ''}"


def _nothing(owner: object, content: Any, counts: Mapping[int, int]) -> str:
    names = [name for name, _ in _children(content)]
    if isinstance(content, Stored):
        return f"{owner} holds one tensor without a name: save it in a dict, such as {{'weight': tensor}}"
    if not isinstance(content, dict):
        what = content.name if isinstance(content, Record) else f"a {type(content).__name__}"
        return f"{owner} holds {what}, not a model or a state dict"
    if states := [f"{name} ({_number(n)})" for name, child in _children(content) if (n := counts.get(id(child), 0))]:
        return (
            f"{owner} holds no weights, only what trainers keep beside them: {few(states)}; take an entry all the same "
            f"with --key {states[0].partition(' ')[0]}"
        )
    arrays = [
        name for name, child in _children(content)
        for part in (child, *(part for _, part in _children(child)))
        if isinstance(part, Record) and part.name.module.startswith("numpy")
    ]  # fmt: skip
    hint = f"; what {arrays[0]!r} holds is NumPy's: save it with torch.from_numpy" if arrays else ""
    return f"{owner} holds no tensors, only {few(names)}{hint or ': name the file of the weights'}"


def _whole(content: Any, owner: object, key: str) -> Weights:
    """Every tensor of one entry, those within entries of it under dotted names."""
    path = _path(content, [] if key == "." else [key])
    if path is None:
        counts = _counts(content)
        names = [n for n, child in _children(content) if isinstance(child, Stored) or counts.get(id(child))]
        raise CheckpointError(
            f"{owner} has no entry {key!r}: {nearest(key, names)}there are tensors in {few(names, 8)}; "
            f"--key . takes them all"
        )
    node, entries = content, []
    for name in path:
        entries += [other for other, _ in _children(node) if other != name]
        node = next(child for other, child in _children(node) if other == name)
    tensors = _unique(_flat(node, owner), owner)
    if not tensors:
        raise CheckpointError(f"{key!r} of {owner} holds no tensors: choose another entry with --key")
    counts, modules = _counts(node), _modules(node, owner)
    entries += [n for n, child in _children(node) if not isinstance(child, Stored) and not counts.get(id(child))]
    return Weights(tensors, tuple(entries), ".".join(path), modules)


def _path(node: Any, left: list[str]) -> list[str] | None:
    """The entries that a dotted key leads through; names may themselves hold dots."""
    if not left:
        return []
    key = left[0]
    for name, child in sorted(_children(node), key=lambda pair: -len(pair[0])):
        if name == key and not isinstance(child, Stored):
            return [name]
        if key.startswith(f"{name}.") and (rest := _path(child, [key[len(name) + 1 :]])) is not None:
            return [name, *rest]
    return None


def _flat(node: Any, owner: object) -> Iterator[tuple[str, Stored]]:
    counts = _counts(node)
    waiting: list[tuple[str, int, Any]] = [("", 0, node)]
    while waiting:
        path, depth, part = waiting.pop()
        if depth > _DEEPEST or counts.get(id(part), 0) >= _MOST:
            raise CheckpointError(f"{owner} holds entries within entries without end: choose one with --key")
        if isinstance(part, Stored):
            yield path, part
        elif counts.get(id(part)):  # of what holds none there may be without end too
            below = [(f"{path}.{name}" if path else name, depth + 1, child) for name, child in _children(part)]
            waiting += reversed(below)


def _unique(tensors: Iterable[tuple[str, Stored]], owner: object) -> dict[str, Stored]:
    found: dict[str, Stored] = {}
    for name, tensor in tensors:
        if name in found:
            raise CheckpointError(f"{owner} holds two tensors that would be called {name!r}: choose one with --key")
        found[name] = tensor
    return found


def _modules(node: Any, owner: object) -> dict[str, Record]:
    return open_module(node, owner)[1] if isinstance(node, Record) and is_module(node) else {}
