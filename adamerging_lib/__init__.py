"""AdaMerging, reproduced: merge fine-tuned models, learn how much of each to take, and measure the result."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import records as records
    from .adapters.expert import load_adapter as load_adapter
    from .adapters.merge import merge_to_adapter as merge_to_adapter
    from .adapters.merge import save_adapter as save_adapter
    from .adapting.adapt import adapt as adapt
    from .adapting.adapted import Adapted as Adapted
    from .adapting.adapted import load_adapted as load_adapted
    from .adapting.readers import image_batches as image_batches
    from .adapting.readers import text_batches as text_batches
    from .coefficients import Coefficients as Coefficients
    from .coefficients import read_authors_file as read_authors_file
    from .doctor.check import check as check
    from .evaluation import evaluate as evaluate
    from .files.merge import merge_files as merge_files
    from .merged import Fit as Fit
    from .merged import Merged as Merged
    from .methods import adamerge as adamerge
    from .methods import merge as merge
    from .methods import merge_with as merge_with
    from .methods import methods as methods
    from .methods import run_method as run_method
    from .methods import ties_split as ties_split
    from .published import published as published
    from .records import average_confidence_interval as average_confidence_interval
    from .records import confidence_interval as confidence_interval
    from .records import with_average as with_average
    from .state import CheckpointError as CheckpointError
    from .state import StateDict as StateDict
    from .suite import Suite as Suite
    from .suite import TaskData as TaskData
    from .suite import split_indices as split_indices
    from .task_vectors import TaskVectors as TaskVectors
    from .worlds.profiles import Profile as Profile
    from .worlds.profiles import load_suite as load_suite
    from .worlds.profiles import profile as profile

__version__ = "0.1.0"

# Where each public name lives. It is imported when first asked for, so that what needs no torch (records, published
# numbers, `adamerging --help`) does not wait for it.
_HOMES = {
    "adapters.expert": ("load_adapter",),
    "adapters.merge": ("merge_to_adapter", "save_adapter"),
    "adapting.adapt": ("adapt",),
    "adapting.adapted": ("Adapted", "load_adapted"),
    "adapting.readers": ("image_batches", "text_batches"),
    "coefficients": ("Coefficients", "read_authors_file"),
    "doctor.check": ("check",),
    "evaluation": ("evaluate",),
    "files.merge": ("merge_files",),
    "merged": ("Fit", "Merged"),
    "methods": ("adamerge", "merge", "merge_with", "methods", "run_method", "ties_split"),
    "published": ("published",),
    "records": ("average_confidence_interval", "confidence_interval", "with_average"),
    "state": ("CheckpointError", "StateDict"),
    "suite": ("Suite", "TaskData", "split_indices"),
    "task_vectors": ("TaskVectors",),
    "worlds.profiles": ("Profile", "load_suite", "profile"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}
__all__ = ["records", *_HOME]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    elif not name.startswith("_") and importlib.util.find_spec(f"{__name__}.{name}"):
        value = importlib.import_module(f"{__name__}.{name}")  # am.records, am.checkpoints
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Library(ModuleType):
    """Keeps the names of functions that share theirs with a room: ``methods`` and ``published``."""

    def __setattr__(self, name: str, value: Any) -> None:
        # Once `adamerging_lib.methods` is loaded, the import system would bind its name here to the module.
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Library
