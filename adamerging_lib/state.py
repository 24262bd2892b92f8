"""State dicts: the one data type of the library, with the checks that every merge relies on."""

from __future__ import annotations

import hashlib
import math
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from .adapters.names import refusal
from .files.kinds import MANY, is_derived, is_mask, is_pruning, is_spread, layout_of, same_bits, same_numbers
from .files.signatures import foreign
from .runtime.atomic import atomic

StateDict = Mapping[str, Tensor]


class CheckpointError(ValueError):
    """A checkpoint that cannot be merged or read; the message names the file or key, and what to do.

    Example:
        >>> try:
        ...     am.TaskVectors.from_state_dicts(base, {"cars": {}})
        ... except am.CheckpointError as error:
        ...     print("cars" in str(error))
        True
    """


def is_merged(tensor: Tensor) -> bool:
    """Whether a tensor can take part in merging: floating point can, integer and bool buffers are copied from θ0.

    Floats that do not, such as statistics, are told by their names: see `files.kinds`.
    """
    return tensor.is_floating_point()


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 for float64, float32 for everything narrower: sums over tasks never run in half precision."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def narrowed(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A tensor cast once; what is too large is Inf or NaN, also in floats of eight bits, where torch would clip it."""
    cast = tensor.to(dtype)
    if dtype.is_floating_point and dtype.itemsize == 1:
        kind = torch.finfo(dtype)
        lost = tensor.abs() > kind.max * (1 + kind.eps / 4)  # what lies nearer is rounded to the largest
        return torch.where(lost, float("nan"), cast.to(tensor)).to(dtype)
    return cast


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


def vectors_of(key: str, pretrained: Tensor, experts: Mapping[str, StateDict]) -> Tensor | None:
    """T_k of one tensor as by `differences`, with every number checked.

    Arguments:
        key: its name.
        pretrained: the tensor of θ0.
        experts: task name → state dict of θ_k.

    Returns:
        T ``[K, *shape]``; None where numbers are not finite and all models have the same bits, as masks of −∞ do: then
        there is nothing to merge.

    Raises:
        CheckpointError: naming the tensor, where a number is not finite, or a difference is too large for its type.
    """
    t = differences(key, pretrained, list(experts.values()))
    # An adapter's difference is finite wherever θ0's numbers are not.
    told = any(hasattr(state, "difference") for state in experts.values())
    if is_finite(t) and not (told and not is_finite(pretrained)):
        return t
    tuned = {task: state[key] for task, state in experts.items()}
    if not is_finite(pretrained) and all(same_bits(pretrained, tensor) for tensor in tuned.values()):
        return None
    _check_alike(key, pretrained, tuned)
    far = next(task for task, own in zip(experts, t, strict=True) if not is_finite(own))
    raise CheckpointError(
        f"{key!r} of {far!r} differs from pretrained by more than {str(t.dtype).removeprefix('torch.')} can hold: such "
        f"numbers are no trained weights; save the checkpoint again"
    )


def _check_alike(key: str, pretrained: Tensor, experts: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError where a tensor that is not the same in all models holds NaN or Inf."""
    models = {"pretrained": pretrained, **experts}
    odd = {owner: tensor for owner, tensor in models.items() if is_merged(tensor) and not is_finite(tensor)}
    if odd and all(is_mask(tensor) for tensor in odd.values()):
        raise CheckpointError(
            f"{key!r} is a mask of -inf in {', '.join(map(repr, odd))}, and not the same in all models: "
            + left_out(key)
        )
    for owner, tensor in odd.items():
        check_finite(key, owner, tensor)


def left_out(key: str) -> str:
    """What to do about a tensor that is not a weight."""
    return f"what is no weight is left out by --drop {shlex.quote(key)} (from Python drop=[{key!r}])"


def averaged(key: str, pretrained: Tensor, experts: Mapping[str, Tensor]) -> Tensor:
    """The mean over θ_k of one statistic, summed in float64, in its own type.

    Raises:
        CheckpointError: where a number is not finite, or a variance is below zero.
    """
    for owner, tensor in {"pretrained": pretrained, **experts}.items():
        check_statistic(key, owner, tensor)
    first = next(iter(experts.values()))
    return torch.stack([t.detach().to(first.device, torch.float64) for t in experts.values()]).mean(0).to(first.dtype)


def check_finite(key: str, owner: str, tensor: Tensor) -> None:
    """Raise CheckpointError where a tensor holds NaN or Inf."""
    if is_merged(tensor) and not is_finite(tensor):
        raise CheckpointError(f"{key!r} of {owner!r} holds NaN or Inf: the checkpoint is broken, save it again")


def check_statistic(key: str, owner: str, tensor: Tensor) -> None:
    """Raise CheckpointError where a running mean or variance is not finite, or a variance is below zero."""
    check_finite(key, owner, tensor)
    if is_spread(key) and tensor.numel() and (least := float(tensor.detach().float().min())) < 0:
        raise CheckpointError(
            f"{key!r} of {owner!r} is {least:.3g}, and no variance is below zero: it comes from a merge that added up "
            f"statistics. Compute it anew, by passes over images in training mode, or merge the experts again"
        )


def check_codes(key: str, pretrained: Tensor, experts: Mapping[str, Tensor]) -> bool:
    """Whether a tensor that is copied from θ0 is another one in an expert.

    Raises:
        CheckpointError: where it is of many whole numbers, or a mask of pruning: what was trained would be lost.
    """
    other = next((task for task, tensor in experts.items() if not same_numbers(pretrained, tensor)), None)
    if other is None:
        return False
    _check_alike(key, pretrained, experts)
    if is_pruning(key):
        raise CheckpointError(
            f"{key!r} differs between pretrained and {other!r}: they were pruned at other places. Make pruning part of "
            f"the weights, by torch.nn.utils.prune.remove for every module, and save every model again"
        )
    if not is_merged(pretrained) and pretrained.numel() >= MANY and not is_derived(key, pretrained):
        raise CheckpointError(
            f"{key!r} holds {pretrained.numel():,} whole numbers, which differ between pretrained and {other!r}: codes "
            f"of quantised weights cannot be averaged. Merge the unquantised models, then quantise the result; "
            + left_out(key)
        )
    return True


def check_state_dicts(pretrained: StateDict, experts: Mapping[str, StateDict]) -> None:
    """Raise unless there are experts, all named, and every model is a mapping of dense tensors; no number is read.

    Arguments:
        pretrained: state dict of θ0.
        experts: task name → state dict of θ_k.

    Raises:
        CheckpointError: naming the task and the key, and what to do.
    """
    if not experts:
        raise CheckpointError("no experts to merge: give at least one (task name, state dict) pair")
    check_tensors("pretrained", pretrained)
    for task, state in experts.items():
        if not isinstance(task, str) or not task:
            raise CheckpointError(f"task name {task!r} is not a non-empty string: name every expert")
        check_tensors(task, state)


def check_tensors(owner: str, state: StateDict) -> None:
    """Raise CheckpointError unless a model is a mapping of dense tensors, not all its own kind; no number is read."""
    if not isinstance(state, Mapping) or not state:
        raise CheckpointError(f"state dict of {owner!r} is empty or not a mapping: give name → tensor")
    if problem := refusal(state, repr(owner)):
        raise CheckpointError(problem)
    for key, tensor in layout_of(state).items():
        if not isinstance(tensor, Tensor):
            raise CheckpointError(
                f"{key!r} of {owner!r} is a {type(tensor).__name__}, not a tensor; a checkpoint of a training run "
                f"keeps its weights under a key such as 'state_dict': give that"
            )
        if tensor.is_quantized or hasattr(tensor, "__tensor_flatten__"):
            raise CheckpointError(
                f"{key!r} of {owner!r} is a {'quantised tensor' if tensor.is_quantized else type(tensor).__name__}, "
                f"whose numbers cannot be averaged as they are: merge the plain models, then quantise the result"
            )
        if tensor.is_complex() or tensor.is_sparse or tensor.layout != torch.strided:
            raise CheckpointError(f"{key!r} of {owner!r} is complex or sparse: convert it to dense floats")


def is_finite(tensor: Tensor) -> bool:
    """Whether a floating-point tensor holds no NaN and no Inf; one without data (on ``meta``) passes."""
    if tensor.is_meta or not tensor.numel() or tensor.dtype == torch.float4_e2m1fn_x2:  # four bits have no Inf
        return True
    # The extremes are NaN if anything is, and found without the temporaries of isfinite: 25 times as fast. They know
    # no 8-bit floats; widening those loses nothing.
    low, high = torch.aminmax(tensor if tensor.itemsize > 1 else tensor.float())
    return math.isfinite(low) and math.isfinite(high)


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
    """The error for a file that is not a safetensors file, or only a part of one."""
    if words := foreign(path):
        return CheckpointError(f"{path} {words}")
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
