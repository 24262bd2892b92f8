"""WEMoE: the MLPs of a merged encoder become mixtures of task vectors, weighted anew for every image by a router."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..forward import compute_state, entropy, logits, prepare_encoder
from ..layers import is_mlp
from ..learning.adaptation import Adaptation, learns
from ..merged import Merged
from ..probing.mixtures import mixed_by_batch, mixed_by_image
from ..runtime.values import one_of
from ..task_vectors import TaskVectors
from .registry import register

if TYPE_CHECKING:
    from ..suite import Suite

RECIPES: dict[str, dict[str, float | int]] = {
    # The authors' repository: 1,000 steps of Adam on one batch of 16 per task, cosine schedule to zero.
    "paper": {"steps": 1000, "lr": 1e-4, "batch_size": 16},
    # Sized for two CPU cores and the small encoder.
    "mini": {"steps": 30, "lr": 1e-3, "batch_size": 16},
}
ROUTINGS = {"image": mixed_by_image, "batch": mixed_by_batch}
INIT_STD = 0.01


@register(
    "wemoe",
    label="WEMoE",
    needs="unlabelled test images",
    task_specific="P of the MLPs + routers / K",
    static=False,
    source="Tang et al. 2024 (WEMoE), Section 3",
    takes="suite",
    adaptive=True,
)
@learns(RECIPES, images="test")
def wemoe(
    suite: Suite,
    run: Adaptation,
    *,
    init: float = 0.3,
    router_layers: int = 2,
    routing: str = "image",
    cosine: bool = True,
) -> Merged:
    """MLP^l(x) with weights θ0^l + Σ_k r_k^l(x) T_k^l, r^l a router, trained by min Σ_k mean_x H(softmax(h_k(f(x)))).

    All other tensors are θ0 + λ Σ_k T_k, fixed.

    Arguments:
        suite: encoder (batch-first, each block's MLP a module named ``mlp``), checkpoints, heads, and test images;
            labels are never read.
        init: λ of the other tensors, and the routers' output bias at the start (0.3).
        router_layers: r(x) = mean over tokens of W2 ReLU(W1 x + b1) + b2 (2, the default), W x + b (1), or b (0: no
            longer conditioned on the input, AdaMerging of the MLPs).
        routing: ``image``: every image has weights of its own, in adaptation and inference, as in the authors'
            repository. ``batch``: their mean over the batch, as in FusionBench; features then depend on what else is
            in the batch, and a batch of one task tells that task.
        cosine: let the learning rate fall to zero along a cosine, as the authors' repository does; FusionBench and
            the text keep it.
        seed: of the image streams and the routers at the start.

    Returns:
        A state with the static merge, and θ0 in the MLPs' places, so use it through `Merged.features` only; routers
        and the MLPs' task vectors beside it; ``history`` (step, loss: the sum in nats, mean entropy per task).

    Raises:
        ValueError: for unusable arguments, an encoder without such MLPs, or entropies that are NaN.

    Touches: all tensors; MLPs by the image.
    Needs: unlabelled test images; at inference no task beyond the head.
    Cost: K·P_mlp multiplications per image for its weights, beside a forward's tokens·P_mlp; adaptation, as
        AdaMerging, one forward and backward of steps·K batches, tasks one after another. Keeps all MLP task vectors:
        573.96 M numbers for eight ViT-B/32, text tower included, of which 7.16 M are routers'.
    Published: 89.4 at ViT-B/32 (pool P1); 89.2 / 91.5 / 93.8 at B/32, B/16, L/14 (pool P2); one router layer 88.3 (P1).

    Source:
        Tang et al. 2024 (Merging Multi-Task Models via Weight-Ensembling Mixture of Experts), Section 3.

    Differs from the published code:
        Images of a batch run at once through batched matrices instead of one by one, and the tasks' gradients are
        summed one after another: the same numbers, less memory. FusionBench means to route by image after adapting by
        batch, but sets that switch on the encoder and not on its MLPs, so it measures with batches too.
    """
    if router_layers not in (0, 1, 2) or isinstance(router_layers, bool):
        raise ValueError(f"router_layers={router_layers!r}: a router has 0, 1 or 2 layers")
    one_of("routing", routing, ROUTINGS)
    device, tv = run.device, suite.task_vectors()
    vectors = mlp_vectors(suite.encoder, tv)
    static = tv.merge(torch.full((len(tv.tasks), 1), float(init), dtype=torch.float64), "task")
    inside = {f"{mlp}.{name}" for mlp, own in vectors.items() for name in own}
    static |= {key: tv.pretrained[key].detach().clone() for key in inside}

    encoder, state = prepare_encoder(suite.encoder, static, device), compute_state(static, device)
    streams = run.streams(suite)
    heads = [suite.heads[task].detach().to(device) for task in tv.tasks]
    extra, routers = {}, []
    for mlp, own in vectors.items():
        extra |= {f"{mlp}|vector|{name}": t.to(device) for name, t in own.items()}
        for name, t in _router(run, mlp, own, router_layers, float(init)).items():
            extra[f"{mlp}|router|{name}"] = nn.Parameter(t.to(device))
            routers.append(extra[f"{mlp}|router|{name}"])
    optimiser = torch.optim.Adam(routers, lr=run.options["lr"])
    total = run.options["steps"]
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=total) if cosine and total else None
    mixed = ROUTINGS[routing]

    steps = run.steps("wemoe", tv.tasks, loss="entropy")
    for step in steps:
        optimiser.zero_grad(set_to_none=True)
        found = []
        for stream, head in zip(streams, heads, strict=True):
            images = suite.normalise(stream.batch(step).to(device))
            loss = entropy(logits(mixed(encoder, state, images, None, extra), head)).mean()
            loss.backward()  # adds to the other tasks' gradients: one task's activations at a time
            found.append(loss.detach())
        optimiser.step()
        if schedule is not None:
            schedule.step()
        steps.add(torch.stack(found))

    return Merged(
        state=static,
        method="wemoe",
        hyper={
            "init": float(init), "router_layers": router_layers, "routing": routing, **run.options,
            "cosine": cosine, "seed": run.seed, "setting": run.setting,
        },
        tasks=tv.tasks,
        forward=mixed,
        extra={name: t.detach().cpu() for name, t in extra.items()},
        history=steps.history(),
    )  # fmt: skip


def mlp_vectors(encoder: nn.Module, tv: TaskVectors) -> dict[str, dict[str, Tensor]]:
    """MLP's module name → tensor name inside it → task vectors ``[K, *shape]``.

    Raises:
        ValueError: for an encoder without modules named ``mlp``, or one that does not put images first.
    """
    names = [name for name, _ in encoder.named_modules() if is_mlp(name)]
    vectors = {}
    for mlp in names:
        keys = [key for key in tv.pretrained if key.startswith(f"{mlp}.") and tv.tied.get(key, key) in tv.vectors]
        vectors[mlp] = {key.removeprefix(f"{mlp}."): tv.vectors[tv.tied.get(key, key)] for key in keys}
    if not vectors or not all(vectors.values()):
        raise ValueError("wemoe mixes modules named 'mlp', one per transformer block, and the encoder has none")
    if any(getattr(module, "batch_first", True) is False for module in encoder.modules()):
        raise ValueError("wemoe needs images first: build the encoder's attention with batch_first=True")
    return vectors


def _router(run: Adaptation, mlp: str, own: Mapping[str, Tensor], layers: int, init: float) -> dict[str, Tensor]:
    """A router before training: weights of standard deviation 0.01, biases zero, the last one λ."""
    first = next((t for t in own.values() if t.dim() == 3), None)
    if first is None:
        raise ValueError(f"module {mlp!r} has no linear layer to route the input of: wemoe cannot mix it")
    tasks, width, generator = len(first), first.shape[2], run.generator("router", mlp)
    router = {"bias": first.new_full((tasks,), init)}

    def normal(*shape: int) -> Tensor:
        return (INIT_STD * torch.randn(shape, generator=generator, dtype=torch.float64)).to(first)

    if layers == 2:
        router |= {"hidden.weight": normal(width, width), "hidden.bias": first.new_zeros(width)}
    return router | ({"weight": normal(tasks, width)} if layers else {})
