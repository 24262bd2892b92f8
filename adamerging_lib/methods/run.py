"""One calling convention for all methods, with the fits of adaptive ones kept in the cache."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor

from ..coefficients import Coefficients
from ..forward import resolve_device
from ..merged import Fit, Merged
from ..runtime.cache import cached, fingerprint_code, fingerprint_suite
from ..runtime.cost import measured
from ..runtime.distributed import active
from ..runtime.sources import LIBRARY
from .registry import check_hyper, find, methods

if TYPE_CHECKING:
    from ..suite import Suite

# These change what is shown or kept on the way, never the result.
_NO_RESULT = ("progress", "checkpoint", "callback", "device")


def run_method(method_id: str, suite: Suite, *, cache: bool = True, **hyper: Any) -> Merged:
    """Run any method on a suite; a leaderboard is a loop over this.

    Arguments:
        method_id: one of `methods`.
        suite: encoder, checkpoints, heads, images.
        cache: keep and reuse the fits of adaptive methods. The key is made from parameters, all data, and the code.
            Within a process group nothing is kept.
        hyper: the method's keyword arguments.

    Returns:
        The merged model.

    Raises:
        ValueError: for an unknown id or hyper-parameter.

    Example:
        >>> suite = am.load_suite("mini").some_images(20)
        >>> for method in ("task_arithmetic", "tsv_m"):
        ...     accuracy = am.evaluate(suite, am.run_method(method, suite))["accuracy"].mean()
    """
    method = find(method_id)
    check_hyper(method, hyper)
    device = resolve_device(hyper.get("device", "cpu"))

    def make() -> Merged:
        argument = suite.task_vectors() if method.takes == "task_vectors" else suite
        return method.function(argument, **hyper)

    # Processes of a group wait for each other in the middle of a fit: none may wait for another's lock meanwhile.
    if not (method.adaptive and cache) or hyper.get("callback") is not None or active():
        return _with_cost(make, device)
    defaults = {
        name: p.default for name, p in inspect.signature(method.function).parameters.items() if p.kind is p.KEYWORD_ONLY
    }
    parameters = {name: _plain(v) for name, v in {**defaults, **hyper}.items() if name not in _NO_RESULT}
    parameters["device"] = device.type
    # A method built on another one, its ``base``, depends on that one's code and images too.
    parts = [method, *([find(parameters["base"])] if "base" in parameters else [])]
    return unpack(*cached(
        method_id, parameters, fingerprint_suite(suite, training=any(part.trains for part in parts)),
        fingerprint_code(*(part.function for part in parts), suite.normalise, unpack),
        lambda: pack(_with_cost(make, device)),
    ))  # fmt: skip


def runnable(suite: Suite) -> list[str]:
    """Ids of all methods that a suite has everything for, in the order of `methods`.

    Arguments:
        suite: without training images it lacks what many methods learn from, without a joint model `traditional_mtl`.
    """
    ids = [id for id in methods().index if suite.train is not None or not find(id).trains]
    return [id for id in ids if suite.joint is not None or id != "traditional_mtl"]


def _with_cost(make: Callable[[], Merged], device: torch.device) -> Merged:
    merged, seconds, memory = measured(make, device)
    return dataclasses.replace(merged, seconds=seconds, memory=memory)


def pack(merged: Merged) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A merged model as (tensors, plain values), to be kept in one safetensors file."""
    tensors: dict[str, Tensor] = {f"state|{key}": t for key, t in (merged.state or {}).items()}
    for task, state in (merged.task_states or {}).items():
        tensors |= {f"task|{task}|{key}": t for key, t in state.items()}
    for task, state in (merged.overrides or {}).items():
        tensors |= {f"override|{task}|{key}": t for key, t in state.items()}
    tensors |= {f"head|{task}": t for task, t in (merged.heads or {}).items()}
    tensors |= {f"bias|{task}": t for task, t in (merged.biases or {}).items()}
    tensors |= {f"extra|{name}": t for name, t in (merged.extra or {}).items()}
    plain: dict[str, Any] = {"method": merged.method, "hyper": dict(merged.hyper), "tasks": merged.tasks}
    plain |= {"storage": merged.storage, "seconds": merged.seconds, "memory": merged.memory}
    if merged.forward is not None:
        plain["forward"] = [merged.forward.__module__, merged.forward.__qualname__]
    if (table := merged.coefficients) is not None:
        tensors["coefficients"] = table.values
        plain["coefficients"] = {"tasks": table.tasks, "rows": table.rows, "granularity": table.granularity}
    if merged.history is not None:
        plain["history"] = {column: merged.history[column].tolist() for column in merged.history}
    if isinstance(merged, Fit):
        tensors["trajectory"] = merged.trajectory
        if merged.guard is not None:
            plain["guard"] = {column: merged.guard[column].tolist() for column in merged.guard}
    return tensors, plain


def unpack(tensors: dict[str, Tensor], plain: dict[str, Any]) -> Merged:
    """What `pack` took apart."""

    def under(prefix: str) -> dict[str, Tensor]:
        return {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}

    tasks = tuple(plain["tasks"])
    common = {
        "state": under("state|") or None,
        "method": plain["method"],
        "hyper": plain["hyper"],
        "tasks": tasks,
        "task_states": {task: state for task in tasks if (state := under(f"task|{task}|"))} or None,
        "overrides": {task: state for task in tasks if (state := under(f"override|{task}|"))} or None,
        "coefficients": None,
        "heads": under("head|") or None,
        "biases": under("bias|") or None,
        "forward": _named(*plain["forward"]) if "forward" in plain else None,
        "extra": under("extra|") or None,
        "storage": plain["storage"],
        "seconds": plain["seconds"],
        "memory": plain["memory"],
        "history": pd.DataFrame(plain["history"]) if "history" in plain else None,
    }
    if "coefficients" in tensors:
        common["coefficients"] = Coefficients(values=tensors["coefficients"], **plain["coefficients"])
    if "trajectory" not in tensors:
        return Merged(**common)
    guard = pd.DataFrame(plain["guard"]) if "guard" in plain else None
    return Fit(**common, trajectory=tensors["trajectory"], guard=guard)


def _named(module: str, name: str) -> Callable[..., Tensor]:
    if not module.startswith(f"{LIBRARY}."):
        raise ValueError(f"a kept fit names {module}.{name}, which is no function of {LIBRARY}: delete the cache")
    return getattr(importlib.import_module(module), name)


def _plain(value: Any) -> Any:
    if isinstance(value, Coefficients):
        return {"tasks": value.tasks, "rows": value.rows, "values": _plain(value.values)}
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().double().tolist()
    return value
