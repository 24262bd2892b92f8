"""MLPs that are mixtures of task vectors, put into an encoder for the length of one forward."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional as F

from ..forward import features
from ..state import StateDict

# Images whose weights are made together: enough to share one reading of the task vectors, few enough to fit a cache.
TOGETHER = 16


def mixed_by_image(
    encoder: nn.Module, state: StateDict, images: Tensor, task: str | None, extra: Mapping[str, Tensor]
) -> Tensor:
    """Unit features ``[n, dim]`` where every image has MLPs of its own."""
    with _mixtures(encoder, extra, by_image=True):
        return features(encoder, state, images)


def mixed_by_batch(
    encoder: nn.Module, state: StateDict, images: Tensor, task: str | None, extra: Mapping[str, Tensor]
) -> Tensor:
    """Unit features ``[n, dim]`` where the images of a batch share MLPs, from their mean routing."""
    with _mixtures(encoder, extra, by_image=False):
        return features(encoder, state, images)


def _route(x: Tensor, router: Mapping[str, Tensor]) -> Tensor:
    """Weights of the task vectors ``[n, K]`` for MLP inputs ``[n, tokens, width]``, averaged over tokens."""
    if "weight" not in router:
        return router["bias"].expand(len(x), -1)
    if "hidden.weight" in router:
        x = F.relu(F.linear(x, router["hidden.weight"], router["hidden.bias"]))
    return F.linear(x, router["weight"], router["bias"]).mean(1)


class _Plain(nn.Module):
    """An MLP called by its class's own forward, also where its instance's is replaced."""

    def __init__(self, mlp: nn.Module) -> None:
        super().__init__()
        self.mlp = mlp

    def forward(self, x: Tensor) -> Tensor:
        return type(self.mlp).forward(self.mlp, x)


def _mixture(mlp: nn.Module, vectors: Mapping[str, Tensor], router: Mapping[str, Tensor], by_image: bool) -> Callable:
    plain = _Plain(mlp)

    def weights(routes: Tensor) -> dict[str, Tensor]:  # θ0 + Σ_k r_k T_k: [n, *shape] for routes [n, K]
        base = mlp.state_dict(keep_vars=True)  # of the state that the encoder is being called with
        return {f"mlp.{name}": base[name] + torch.tensordot(routes, t.to(routes), 1) for name, t in vectors.items()}

    def one(own: Mapping[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(plain, own, (x,))

    def forward(x: Tensor) -> Tensor:
        routes = _route(x, router)
        if not by_image:
            return one(weights(routes.mean(0)), x)
        pieces = zip(routes.split(TOGETHER), x.split(TOGETHER), strict=True)
        return torch.cat([vmap(one)(weights(part), some) for part, some in pieces])

    return forward


@contextmanager
def _mixtures(encoder: nn.Module, extra: Mapping[str, Tensor], *, by_image: bool) -> Iterator[None]:
    """Within the block, the encoder's MLPs are mixtures; the module is as before when it ends."""
    parts: dict[str, dict[str, dict[str, Tensor]]] = {}
    for name, t in extra.items():
        mlp, kind, inner = name.split("|")
        parts.setdefault(mlp, {"vector": {}, "router": {}})[kind][inner] = t
    modules = {mlp: encoder.get_submodule(mlp) for mlp in parts}
    try:
        for mlp, module in modules.items():
            module.forward = _mixture(module, parts[mlp]["vector"], parts[mlp]["router"], by_image)
        yield
    finally:
        for module in modules.values():
            module.__dict__.pop("forward", None)
