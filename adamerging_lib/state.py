"""State dicts: the one data type of the library, with the checks that every merge relies on."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from .adapters.names import refusal
from .runtime.atomic import atomic
from .runtime.values import few

StateDict = Mapping[str, Tensor]


class CheckpointError(ValueError):
    """A checkpoint that cannot be merged or read; the message names the file or key and the mend."""


def is_merged(tensor: Tensor) -> bool:
    """Whether a tensor takes part in merging: floating point does, integer and bool buffers are copied from θ0."""
    return tensor.is_floating_point()


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 for float64, float32 for everything narrower: sums over tasks never run in half precision."""
    return torch.float64 if dtype == torch.float64 else torch.float32


@torch.no_grad()
def differences(key: str, base: Tensor, experts: Sequence[StateDict]) -> Tensor:
    """T_k = θ_k − θ0 of one tensor, stacked ``[K, *shape]``, in float32 (float64 for float64).

    Arguments:
        key: its name.
        base: the tensor of θ0.
        experts: state dicts of θ_k. One with a function ``difference(key)``, such as a base with an adapter, is asked
            for T_k itself (None for zeros): θ_k in half precision has lost most of what a small ΔW is.
    """
    base = base.detach().to(accumulation_dtype(base.dtype))
    stacked = base.new_empty((len(experts), *base.shape))
    for own, state in zip(stacked, experts, strict=True):
        if hasattr(state, "difference"):
            own.zero_() if (t := state.difference(key)) is None else own.copy_(t)
        else:
            own.copy_(state[key].detach())
            own -= base
    return stacked


def check_state_dicts(pretrained: StateDict, experts: Mapping[str, StateDict]) -> None:
    """Raise unless θ0 and every θ_k can be merged: same keys, shapes, dtypes, and finite numbers.

    Arguments:
        pretrained: state dict of θ0.
        experts: task name → state dict of θ_k.

    Raises:
        CheckpointError: naming the task and the keys, and what to do.
    """
    if not experts:
        raise CheckpointError("no experts to merge: give at least one (task name, state dict) pair")
    _check_tensors("pretrained", pretrained)
    for task, state in experts.items():
        if not isinstance(task, str) or not task:
            raise CheckpointError(f"task name {task!r} is not a non-empty string: name every expert")
        _check_tensors(task, state)
        missing, extra = pretrained.keys() - state.keys(), state.keys() - pretrained.keys()
        if missing or extra:
            raise CheckpointError(
                f"expert {task!r} and pretrained have different keys: missing {few(sorted(missing))}, unexpected "
                f"{few(sorted(extra))}; strip or add the key prefix, or drop the keys that are not the encoder's"
            )
        for key, reference in pretrained.items():
            for what in ("shape", "dtype"):
                expected, found = getattr(reference, what), getattr(state[key], what)
                if expected != found:
                    raise CheckpointError(
                        f"{key!r} of expert {task!r} has {what} {_plain(found)}, pretrained has {_plain(expected)}; "
                        f"fine-tune from the same pretrained checkpoint" + (" or cast" if what == "dtype" else "")
                    )


def _check_tensors(owner: str, state: StateDict) -> None:
    if not isinstance(state, Mapping) or not state:
        raise CheckpointError(f"state dict of {owner!r} is empty or not a mapping: give name → tensor")
    if problem := refusal(state, repr(owner)):
        raise CheckpointError(problem)
    for key, tensor in state.items():
        if not isinstance(tensor, Tensor):
            raise CheckpointError(
                f"{key!r} of {owner!r} is a {type(tensor).__name__}, not a tensor; a checkpoint of a training run "
                f"keeps its weights under a key such as 'state_dict': give that"
            )
        if tensor.is_complex() or tensor.is_sparse or tensor.is_quantized:
            raise CheckpointError(f"{key!r} of {owner!r} is complex, sparse or quantised: convert it to dense floats")
        if is_merged(tensor) and not is_finite(tensor):
            raise CheckpointError(f"{key!r} of {owner!r} holds NaN or Inf: the checkpoint is broken, save it again")


def is_finite(tensor: Tensor) -> bool:
    """Whether a floating-point tensor holds no NaN and no Inf; one without data (on ``meta``) passes."""
    if tensor.is_meta or not tensor.numel():
        return True
    # The extremes are NaN if anything is, and found without the temporaries of isfinite: 25 times as fast. They know
    # no 8-bit floats; widening those loses nothing.
    extremes = torch.aminmax(tensor if tensor.itemsize > 1 else tensor.float())
    return bool(torch.isfinite(torch.stack(extremes)).all())


def _plain(value: object) -> object:
    return list(value) if isinstance(value, torch.Size) else value


def load(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read a safetensors file.

    Arguments:
        path: a ``.safetensors`` file.

    Returns:
        Name → tensor on the CPU.

    Raises:
        CheckpointError: where the file is missing, or is not safetensors.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}: check the path")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: Exception) -> CheckpointError:
    """The error for a file that is no safetensors file, or only a part of one."""
    return CheckpointError(
        f"{path} is not a readable safetensors file ({error}); if it was copied or downloaded, it may be cut short: "
        f"fetch it again, else save it again"
    )


def load_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The text metadata that `save` stored in a safetensors file; an empty dict where there is none."""
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}: check the path")
    try:
        with safe_open(path, framework="pt") as handle:
            return dict(handle.metadata() or {})
    except SafetensorError as error:
        raise unreadable(path, error) from error


def save(path: str | os.PathLike[str], state_dict: StateDict, metadata: Mapping[str, str] | None = None) -> None:
    """Write a state dict as safetensors, all or nothing: a killed run leaves the old file or the new one.

    Arguments:
        path: target; its folder is made.
        state_dict: name → tensor, any device.
        metadata: text to keep beside the tensors.
    """
    # Two names of one tensor are stored twice: safetensors refuses shared memory, and a reader needs both keys.
    tensors = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in state_dict.items()}
    with atomic(path) as temporary:
        save_file(tensors, temporary, metadata=dict(metadata or {}))


def sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, as hexadecimal text."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def fingerprint(state_dict: StateDict) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of a state dict, independent of key order and device."""
    digest = hashlib.sha256()
    for key in sorted(state_dict):
        tensor = state_dict[key].detach().cpu().contiguous()
        digest.update(f"{key}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
