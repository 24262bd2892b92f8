"""What flows into the linear maps of an encoder: recorded call by call, and summed to Gram matrices."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..learning.recipes import check_count
from ..learning.streams import Stream

if TYPE_CHECKING:
    from ..suite import Suite

Record = Callable[[str, Tensor], object]
"""(name of a weight ``[out, in]``, its input ``[..., in]``), called once a call of the linear map."""


@contextmanager
def recording(module: nn.Module, record: Record) -> Iterator[None]:
    """While open, every call of a module hands the input of each of its linear maps to ``record``.

    Hooks on Linear modules alone would miss half of a CLIP tower: nn.MultiheadAttention computes its fused projection
    and its output projection without calling them. Its forward is replaced by an explicit, equal one meanwhile.

    Arguments:
        module: an encoder or a part of one; left as it was found.
        record: gets names relative to the module, ``….weight`` or ``….in_proj_weight`` (queries, keys and values
            share one input), and inputs as the call saw them.

    Raises:
        ValueError: for attention whose inputs cannot be told: masked, across two inputs, or with a fused projection
            outside nn.MultiheadAttention.
    """
    handles, swapped = [], []
    try:
        for name, part in module.named_modules():
            prefix = f"{name}." if name else ""
            if isinstance(part, nn.MultiheadAttention):
                part.forward = partial(_attention, part, partial(record, f"{prefix}in_proj_weight"))
                swapped.append(part)
            elif isinstance(part, nn.Linear):
                hook = partial(_first_input, partial(record, f"{prefix}weight"))
                handles.append(part.register_forward_pre_hook(hook))
            elif "in_proj_weight" in part._parameters:
                raise ValueError(
                    f"{prefix}in_proj_weight belongs to a {type(part).__name__}: its input is not recorded"
                )
        yield
    finally:
        for handle in handles:
            handle.remove()
        for part in swapped:
            del part.forward


def gram_matrices(module: nn.Module, run: Callable[[Tensor], object], batches: Iterable[Tensor]) -> dict[str, Tensor]:
    """G = XᵀX / n of every linear map's input over all tokens, summed batch by batch in float64.

    Arguments:
        module: what is observed, see `recording`.
        run: calls the module on one batch.
        batches: what ``run`` takes; only one batch's activations are ever held.

    Returns:
        Weight name → G ``[in, in]``, float64.
    """
    sums: dict[str, Tensor] = {}
    rows: dict[str, int] = {}

    def add(name: str, x: Tensor) -> None:
        x = x.reshape(-1, x.shape[-1])
        product = (x.t() @ x).double()
        sums[name] = sums[name].add_(product) if name in sums else product
        rows[name] = rows.get(name, 0) + len(x)

    with torch.no_grad(), recording(module, add):
        for batch in batches:
            run(batch)
    return {name: total.div_(rows[name]) for name, total in sums.items()}


def training_images(suite: Suite, count: int, seed: int) -> dict[str, Tensor]:
    """Task → ``count`` of its training images, drawn without replacement (all where it has no more), uint8."""
    check_count("images", count)
    return {
        task: Stream(data.images, size=min(count, len(data)), task=task, seed=seed).batch(0)
        for task, data in suite.training().items()
    }


def _first_input(record: Callable[[Tensor], object], module: nn.Module, inputs: tuple[Any, ...]) -> None:
    record(inputs[0].detach())


def _attention(
    module: nn.MultiheadAttention,
    record: Callable[[Tensor], object],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, None]:
    """nn.MultiheadAttention.forward for unmasked self-attention, through calls that hooks see."""
    masked = is_causal or key_padding_mask is not None or attn_mask is not None
    if masked or not (query is key is value) or module.in_proj_weight is None or module.bias_k is not None:
        raise ValueError("only unmasked self-attention with a fused projection is recorded, as image encoders have it")
    record(query.detach())
    x = query if module.batch_first else query.transpose(0, 1)
    n, length, width = x.shape
    projected = F.linear(x, module.in_proj_weight, module.in_proj_bias)
    q, k, v = (t.view(n, length, module.num_heads, -1).transpose(1, 2) for t in projected.chunk(3, -1))
    heads = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, length, width)
    out = module.out_proj(heads)  # as a module, so that its own hook records the concatenated heads
    return (out if module.batch_first else out.transpose(0, 1)), None
