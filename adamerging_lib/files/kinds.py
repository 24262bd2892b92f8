"""What the tensors of a checkpoint are beside plain weights: statistics, counters, masks, codes, one under two names.

Pure functions of names, layouts (name → tensor, which may lie on ``meta``) and tensors, for merging files, for merging
state dicts, and for checking before either.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

Layout = Mapping[str, Tensor]

MANY = 64
"""Whole numbers of one tensor from which on differences between models are codes, and no counter or index."""

_STATISTIC = re.compile(r"(?:running|moving)_?\w*?(?:mean|var|std|avg|average)\w*", re.I)
_SPREAD = re.compile(r"var|std", re.I)
_COUNTER = re.compile(r"num_batches_tracked|num_updates|n_averaged|update_count|global_step")
_PRUNED = re.compile(r"(?:\w*weight|\w*bias)_mask")
_DERIVED = re.compile(
    r"position_ids|token_type_ids|(?:original_)?inv_freq|(?:cos|sin)_cached|freqs_cis|masked_bias"
    r"|relative_position_index"
)
_CAUSAL = re.compile(r"bias|mask|attn_mask|causal_mask|tril")

# A quantised weight is a code beside its scale. Codes often have the names of ordinary weights, and scales those of
# ordinary factors: only the two in one module, the code of a type that codes have, show anything.
_CODE = re.compile(r"\w*weight\w*(?:[.:]\w*data)?|W_q|codes|trellis|_?(?:q|int_)?data")
_SCALE = re.compile(
    r"(?:(?:\w*weight|input|output|act|activation|nested)[._:]*)?_?"
    r"(?:SCB|(?:nested_)?absmax|(?:nested_)?quant_map|quant_state\b.*|(?:global_)?scales?(?:_inv|_2|_and_zero)?"
    r"|zeros?(?:_?points?)?|qzeros|codebooks?|su?h|svh|meta)|q_scales?|q_groups|g_idx|scale_(?:weight|input)"
)
_OWN_SCALE = re.compile(r"[._:]*(?:(?:inv_|de)?scales?|scale_inv|scale_2|zero_points?|absmax|quant_state\b.*)")
_ONLY_CODES = re.compile(r"qweight|qzeros|q_weight|\w*weight\w*_packed|Qidxs")
_FAMILIES = (
    (r"SCB|absmax|quant_map|quant_state", "bitsandbytes"),
    (r"qweight|qzeros|g_idx", "GPTQ or AWQ"),
    (r"W_q", "HQQ"),
    (r"weight_packed", "compressed-tensors"),
    (r"scale_inv", "fp8 in blocks"),
    (r"biases", "MLX"),
    (r"qdata|int_data", "torchao"),
)


def is_statistic(name: str) -> bool:
    """Whether a tensor holds running means or variances: they are averaged over models, never extrapolated."""
    flax = "batch_stats" in name and _last(name) in ("mean", "var")
    return flax or _STATISTIC.fullmatch(_last(name)) is not None


def is_spread(name: str) -> bool:
    """Whether a statistic is a variance or a deviation, and so never below zero."""
    return is_statistic(name) and _SPREAD.search(_last(name)) is not None


def is_counter(name: str) -> bool:
    """Whether a tensor counts batches or updates, in whichever type."""
    return _COUNTER.fullmatch(_last(name)) is not None


def is_pruning(name: str) -> bool:
    """Whether a tensor is a mask of `torch.nn.utils.prune`, 0 where a weight is cut, kept as floats."""
    return _PRUNED.fullmatch(_last(name)) is not None


def is_derived(name: str, tensor: Tensor) -> bool:
    """Whether a library computes a tensor from its configuration: positions, rotary frequencies, causal masks."""
    last, shape = _last(name), tensor.shape
    square = len(shape) > 1 and shape[-1] == shape[-2] and all(side == 1 for side in shape[:-2])
    # A square bias can be learned, one of shape [1, 1, n, n] is GPT-2's mask.
    causal = square and _CAUSAL.fullmatch(last) and (len(shape) == 4 or last not in ("bias", "mask"))
    return bool(causal) or _DERIVED.fullmatch(last) is not None


def is_copied(name: str, tensor: Tensor) -> bool:
    """Whether the merged model has θ0's own: whole numbers, nothing, counters, masks, what is derived."""
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    return is_counter(name) or is_pruning(name) or is_derived(name, tensor)


def is_mask(tensor: Tensor) -> bool:
    """Whether a tensor holds −∞ as masks of attention do: there, and zero (or another one number) elsewhere."""
    if not tensor.is_floating_point() or not tensor.numel():
        return False
    flat = tensor.detach().float()
    masked = flat == -float("inf")
    rest = flat[~masked]
    return bool(masked.any()) and bool((rest == rest[:1]).all()) and bool(torch.isfinite(rest[:1]).all())


def quantised(layout: Layout) -> str | None:
    """What shows that a model's weights are quantised, as text naming the tensors; None where nothing does.

    Codes beside a scale, in the names of bitsandbytes, GPTQ, AWQ, HQQ, compressed-tensors, fp8, MLX, torchao and
    others; and types that only codes have. A float called ``scale`` beside float weights shows nothing, nor do weights
    that were rounded to eight-bit floats without a scale.
    """
    if packed := next((name for name, tensor in layout.items() if tensor.dtype in _PACKED), None):
        return f"{packed!r} is {_plain(layout[packed].dtype)}, floats of four bits"
    codes = [name for name, tensor in layout.items() if is_code(tensor)]
    modules = {_parent(name) for name in codes}
    below: dict[str, list[str]] = {}
    for name in layout:
        parts = name.split(".")
        for count in range(max(0, len(parts) - 3), len(parts)):
            if (module := ".".join(parts[:count])) in modules:
                below.setdefault(module, []).append(name)
    for name in codes:
        module, kind = _parent(name), _plain(layout[name].dtype)
        start = len(module) + 1 if module else 0
        if not layout[name].is_floating_point() and _ONLY_CODES.fullmatch(name[start:]):
            return _told(name, kind)
        for other in below[module]:
            if other != name and _beside(name[start:], other[start:]):
                return _told(name, kind, other)
    return None


def is_code(tensor: Tensor) -> bool:
    """Whether quantised weights come in this type: whole numbers of one, two or four bytes, eight-bit floats."""
    if tensor.is_floating_point():
        return tensor.element_size() == 1
    return tensor.dtype not in (torch.bool, torch.int64, torch.uint64) and not tensor.is_complex()


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors hold the same bits, NaN included."""
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        return False
    return torch.equal(_bytes(one), _bytes(other).to(one.device))


def same_numbers(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors of whole numbers or floats hold the same numbers, in whichever type."""
    if one.shape != other.shape:
        return False
    if one.dtype == other.dtype:
        return same_bits(one, other)
    wide = torch.float64 if one.is_floating_point() or other.is_floating_point() else torch.int64
    return torch.equal(one.to(wide), other.to(one.device, wide))


def is_constant(tensor: Tensor) -> bool:
    """Whether all entries are one number; a scalar's and no entries are."""
    return not tensor.numel() or bool((tensor == tensor.reshape(-1)[0]).all())


def ties(states: Sequence[Layout], names: Iterable[str]) -> dict[str, str]:
    """Names of equal values in every model → the name, first in the alphabet, that stands for them.

    A tied weight is one tensor under two names: merged under both it would be counted twice, and come out different
    where a method draws by name. Files know nothing of shared memory, so values decide. Tensors of one number alone say
    nothing (norms that were never trained are all 1), scalars among them: they are not ties.

    Arguments:
        states: θ0 and every θ_k, read only where shapes and some entries of θ0 agree.
        names: which tensors.
    """
    first, *others = states
    groups = _split([names], lambda name: (layout_of(first)[name].shape, layout_of(first)[name].dtype))
    groups = _split(groups, lambda name: sample(first[name]))
    for state in states:
        groups = _split(groups, lambda name, state=state: digest(state[name]))
    tied = {}
    for group in groups:
        if not all(is_constant(state[group[0]]) for state in states):
            home = min(group)
            tied |= {name: home for name in group if name != home}
    return tied


def layout_of(state: Layout) -> Layout:
    """Name → shape and dtype: of a file its header, of a state dict itself."""
    return getattr(state, "layout", state)


def sample(tensor: Tensor) -> Hashable:
    """Some entries of a tensor, spread over it: equal tensors have the same."""
    flat = tensor.detach().reshape(-1)
    places = torch.linspace(0, max(0, len(flat) - 1), min(len(flat), 16), dtype=torch.float64).long()
    return bytes(_bytes(flat[places.to(flat.device)]).cpu().numpy())


def digest(tensor: Tensor) -> bytes:
    """SHA-256 of a tensor's bits."""
    return hashlib.sha256(_bytes(tensor).cpu().numpy().data).digest()


def _split(groups: Iterable[Iterable[str]], key: Callable[[str], Hashable]) -> list[list[str]]:
    """The groups, each parted by a key; what is alone is left out."""
    parted = []
    for group in groups:
        parts: dict[Hashable, list[str]] = {}
        for name in group:
            parts.setdefault(key(name), []).append(name)
        parted += [part for part in parts.values() if len(part) > 1]
    return parted


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


_PACKED = {dtype for name in ("float4_e2m1fn_x2",) if (dtype := getattr(torch, name, None))}


def _beside(own: str, rest: str) -> bool:
    """Whether ``rest``, in the same module as the code ``own``, is its scale."""
    stem = re.sub(r"_(?:blocks|packed|quanti[sz]ed|quant|codes|q|int[48]|fp[48])$", "", own)
    named = any(rest.startswith(name) and _OWN_SCALE.fullmatch(rest[len(name) :]) for name in (own, stem))
    return named or (_CODE.fullmatch(own) is not None and _SCALE.fullmatch(rest) is not None)


def _told(code: str, kind: str, scale: str | None = None) -> str:
    family = next((f", as {name} stores it" for found, name in _FAMILIES if re.search(found, f"{code} {scale}")), "")
    return f"{code!r} is {kind}" + (f" with its scale in {scale!r}" if scale else "") + family


def _last(name: str) -> str:
    return re.split(r"[./]", name)[-1]


def _parent(name: str) -> str:
    return name.rpartition(".")[0]


def _plain(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
