"""Pickled modules of torch, as their state dicts."""

from __future__ import annotations

from ..state import CheckpointError
from .inert import Record, Stored

_MOST_MODULES = 10_000  # a module that holds itself has no end
_PARTS = ("_parameters", "_buffers", "_modules")


def is_module(record: Record) -> bool:
    """Whether a record keeps what a ``torch.nn.Module`` does."""
    return all(isinstance(record.attributes.get(part), dict) for part in _PARTS)


def open_module(module: Record, owner: object) -> tuple[dict[str, Stored], dict[str, Record]]:
    """What ``state_dict()`` of a pickled module would give, and its submodules.

    Arguments:
        module: a `Record` with what a ``torch.nn.Module`` keeps.
        owner: for messages.

    Returns:
        Name → tensor in the order of ``state_dict()``; path → submodule, the module itself under the empty path.

    Raises:
        CheckpointError: where it is not a module, or holds itself.
    """
    tensors: dict[str, Stored] = {}
    modules: dict[str, Record] = {}
    waiting = [("", module)]
    while waiting:
        path, record = waiting.pop()
        parts = record.attributes if isinstance(record, Record) else {}
        own, buffers, children = (parts.get(name) for name in _PARTS)
        endless = len(modules) >= _MOST_MODULES or len(path) > 1000
        if endless or not all(isinstance(part, dict) for part in (own, buffers, children)):
            what = record.name if isinstance(record, Record) else f"a {type(record).__name__}"
            end = " without end" if endless else ""
            raise CheckpointError(f"{owner} is not a readable module: it holds {what}{end}")
        modules[path] = record
        prefix = f"{path}." if path else ""
        left_out = parts.get("_non_persistent_buffers_set", ())
        for name, tensor in {**own, **{k: b for k, b in buffers.items() if k not in left_out}}.items():
            if tensor is not None and not isinstance(tensor, Stored):
                raise CheckpointError(f"{owner}: {prefix}{name} is a {type(tensor).__name__}, not a tensor")
            if tensor is not None:
                tensors[f"{prefix}{name}"] = tensor
        waiting += [(f"{prefix}{name}", child) for name, child in reversed(children.items()) if child is not None]
    return tensors, modules
