"""Statistics of activations that a model keeps, as BatchNorm does: how they serve adaptation, and made anew."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

MODES = ("none", "mixed", "batch")
SHARE = 0.5


def layers(model: nn.Module) -> dict[str, _BatchNorm]:
    """The layers that keep statistics of batches, by name."""
    found = ((name, m) for name, m in model.named_modules() if isinstance(m, _BatchNorm))
    return {name: m for name, m in found if m.running_mean is not None}


def written(name: str) -> bool:
    """Whether a tensor is one that such layers write to."""
    return name.rpartition(".")[2] in ("running_mean", "running_var", "num_batches_tracked")


def prepare(model: nn.Module, mode: str) -> None:
    """Have a model in evaluation mode normalise by other statistics than those kept.

    Arguments:
        model: changed in place.
        mode: ``none`` leaves it; ``batch`` takes each batch's own, with gradients through them, as in training;
            ``mixed`` takes the mean of the kept and the batch's own, as constants.
    """
    for layer in layers(model).values():
        if mode == "batch":
            layer.train()
        elif mode == "mixed":
            layer.register_forward_pre_hook(_mix)
            layer.register_forward_hook(_unmix)


def _mix(layer: _BatchNorm, inputs: tuple[Tensor, ...]) -> None:
    kept = layer.running_mean, layer.running_var
    mean, var, _ = moments(inputs[0])
    layer.kept = kept
    layer.running_mean, layer.running_var = (
        torch.lerp(old, new.to(old), SHARE) for old, new in zip(kept, (mean, var), strict=True)
    )


def _unmix(layer: _BatchNorm, inputs: Any, output: Any) -> None:
    layer.running_mean, layer.running_var = layer.kept
    del layer.kept


@torch.no_grad()
def moments(x: Tensor) -> tuple[Tensor, Tensor, int]:
    """Mean and variance per channel of activations ``[n, channels, …]``, and how many numbers each is of."""
    dims = [0, *range(2, x.dim())]
    var, mean = torch.var_mean(x.detach().float() if x.dtype.itemsize < 4 else x.detach(), dims, correction=0)
    return mean, var, x.numel() // x.shape[1]


def recalibrated(
    model: nn.Module, run: Callable[[Any], object], batches: Iterable[Any], names: Iterable[str]
) -> dict[str, Tensor]:
    """Statistics of the activations that batches make, each batch normalised by its own.

    Means and variances are those of all batches together: what lies between batches, and so between tasks, counts.

    Arguments:
        model: what ``run`` calls; in evaluation mode, and left so.
        run: runs a batch through it.
        batches: what to run.
        names: of the statistics wanted, ``layer.running_mean`` and ``layer.running_var``.

    Returns:
        Name → statistic in float32 or wider; without layers that no batch came through.
    """
    wanted, sums = set(names), {}
    known = {name: m for name, m in layers(model).items() if f"{name}.running_mean" in wanted}

    def note(name: str) -> Callable[..., None]:
        def hook(layer: _BatchNorm, inputs: tuple[Tensor, ...]) -> None:
            mean, var, n = moments(inputs[0])
            mean, var = mean.double(), var.double()
            old = sums.get(name, (0.0, 0.0, 0))
            sums[name] = (old[0] + n * mean, old[1] + n * (var + mean**2), old[2] + n)

        return hook

    hooks = [layer.register_forward_pre_hook(note(name)) for name, layer in known.items()]
    try:
        for layer in known.values():
            layer.train()
        with torch.no_grad():
            for batch in batches:
                run(batch)
    finally:
        for hook in hooks:
            hook.remove()
        for layer in known.values():
            layer.eval()
    found = {}
    for name, (first, second, n) in sums.items():
        mean = first / n
        # As torch keeps it, the variance is the unbiased one.
        var = ((second / n - mean**2) * (n / max(1, n - 1))).clamp(min=0)
        found |= {f"{name}.running_mean": mean.float(), f"{name}.running_var": var.float()}
    return found
