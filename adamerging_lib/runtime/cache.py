"""A cache of fits whose key holds everything a fit depends on: parameters, data, checkpoints and code."""

from __future__ import annotations

import ast
import functools
import hashlib
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from filelock import FileLock
from torch import Tensor, nn

from ..state import fingerprint, load, load_metadata, save
from . import fingerprints
from .sources import module_files, stamp

if TYPE_CHECKING:
    from ..suite import Suite


def folder() -> Path:
    """Where fits are kept: $ADAMERGING_CACHE, else ``.cache/fits`` of the checkout, else the user's cache folder."""
    if given := os.environ.get("ADAMERGING_CACHE"):
        return Path(given)
    root = Path(__file__).resolve().parents[2]
    base = root / ".cache" if (root / "pyproject.toml").is_file() else Path.home() / ".cache" / "adamerging"
    return base / "fits"


def cached(
    kind: str,
    parameters: Mapping[str, Any],
    assets: Mapping[str, str],
    sources: str,
    compute: Callable[[], tuple[dict[str, Tensor], dict[str, Any]]],
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The result of ``compute()``, or the one kept from an earlier call with the same key.

    Arguments:
        kind: first part of the file name.
        parameters: plain values that the result depends on.
        assets: name → digest of the data that it depends on.
        sources: digest of the code that it depends on, see `fingerprint_code`.
        compute: gives (tensors, plain values); both are kept.

    Returns:
        (tensors on the CPU, plain values), equal bit for bit whether computed or read.

    Raises:
        ValueError: where parameters are not plain values, or a kept file is broken.
    """
    try:
        key = json.dumps([kind, parameters, assets, sources], sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"cache key of {kind!r} needs plain finite values: {error}") from error
    path = folder() / f"{kind}-{hashlib.sha256(key.encode()).hexdigest()[:32]}.safetensors"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        # Notebooks that run side by side want the same fits: who comes second waits and reads.
        with FileLock(path.with_suffix(".lock")):
            if not path.is_file():
                tensors, plain = compute()
                save(path, tensors, {"key": key, "order": json.dumps(list(tensors)), "plain": json.dumps(plain)})
    metadata = load_metadata(path)
    if metadata.get("key") != key:
        raise ValueError(f"{path} does not hold the fit that its name promises: delete the file")
    tensors = load(path)  # safetensors sorts by size; a state dict keeps its order
    return {name: tensors[name] for name in json.loads(metadata["order"])}, json.loads(metadata["plain"])


def fingerprint_suite(suite: Suite, *, training: bool = False) -> dict[str, str]:
    """Digests of everything of a suite that a fit depends on, from the tensors themselves.

    Arguments:
        suite: the suite.
        training: training images and labels count too.

    File checksums alone would miss corrupted or subset images, replaced heads, or a suite built in memory.
    """
    digests = {"pretrained": fingerprint(suite.pretrained), "heads": fingerprint(suite.heads)}
    digests |= {f"expert {task}": fingerprint(state) for task, state in suite.experts.items()}
    digests |= {f"images {task}": fingerprints.fingerprint({"": suite.test[task].images}) for task in suite.test}
    if training:
        for task, data in suite.training().items():
            digests[f"training {task}"] = fingerprints.fingerprint({"images": data.images, "labels": data.labels})
    library = sys.modules.get(type(suite.encoder).__module__.partition(".")[0])
    described = [getattr(library, "__version__", None), _describe(suite.encoder), suite.mean, suite.std]
    digests["encoder"] = hashlib.sha256(json.dumps(described).encode()).hexdigest()
    return digests


def _describe(encoder: nn.Module) -> list[list[Any]]:
    """Class and plain settings of every submodule; repr alone leaves out the number of attention heads."""
    return [
        [name, type(module).__module__, type(module).__qualname__, sorted(
            (key, repr(value)) for key, value in vars(module).items()
            if key != "training" and isinstance(value, (bool, int, float, str, tuple, torch.dtype))
        )]
        for name, module in encoder.named_modules()
    ]  # fmt: skip


def fingerprint_code(*functions: Callable[..., Any]) -> str:
    """Digest of torch's version and of every module of this package that the functions' modules import, transitively.

    Comments, docstrings and layout do not count, so that better wording does not throw fits away.
    """
    digest = hashlib.sha256(torch.__version__.encode())
    for name, path in sorted(module_files(map(_home, functions)).items()):
        digest.update(f"{name}|{_code(path, stamp(path))}|".encode())
    return digest.hexdigest()


def _home(function: Callable[..., Any]) -> str:
    return getattr(function, "func", function).__module__  # a functools.partial lives where its function does


@functools.cache
def _code(path: Path, stamp: int) -> str:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)
