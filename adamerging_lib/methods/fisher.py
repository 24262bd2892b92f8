"""Fisher merging: every parameter averaged with its diagonal Fisher information as weight."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.func import grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..forward import compute_state, features, logits, prepare_encoder
from ..learning.adaptation import Adaptation, learns
from ..learning.recipes import check_count, check_positive
from ..merged import Merged
from ..probing.activations import training_images
from ..vectors.elementwise import add
from .registry import register

if TYPE_CHECKING:
    from ..suite import Suite

CHUNK = 2**25  # numbers of per-sample gradients held at once


@register(
    "fisher",
    label="Fisher Merging",
    needs="unlabelled training images",
    source="Matena & Raffel 2022",
    takes="suite",
    adaptive=True,
    trains=True,
)
@learns(images="train")
def fisher(
    suite: Suite,
    run: Adaptation,
    *,
    images: int = 256,
    mc_samples: int = 0,
    coverage: float = 0.99,
    normalise: bool = True,
    floor: float = 1e-6,
) -> Merged:
    """θ = Σ_k w_k F_k θ_k / Σ_k w_k F_k entry by entry, F_k = E_x Σ_c p(c|x) (∂ log p(c|x) / ∂θ)².

    Σ_c p_c (∂ log p_c/∂θ)² = Σ_r μ_r (∂⟨v_r, logits⟩/∂θ)², with μ_r, v_r the eigenvalues and vectors of
    diag(p) − p pᵀ. A sure expert has next to none for most images and one or two large ones for the others, so that a
    tenth of the backward passes holds nearly all of the sum.

    Arguments:
        suite: encoder, checkpoints, heads and training images; labels are never read.
        images: training images per task (256).
        mc_samples: 0 for the whole sum over classes; n for n classes drawn from p(·|x) per image instead.
        coverage: share of a task's Σ μ that the sum keeps, in (0, 1], largest first; 1 is exact to the last class.
        normalise: w_k = 1 / (‖F_k‖ + floor), so that every task weighs alike; otherwise w_k = 1.
        floor: added to every F, as FusionBench does: what no gradient reaches is then averaged.
        seed: of the choice of images, and of the classes drawn.

    Returns:
        The shared encoder.

    Raises:
        ValueError: for unusable arguments.

    Touches:
        All floating-point tensors.

    Needs:
        Unlabelled training images of every task.

    Cost:
        K · images forward passes, and a backward pass for every eigenvector kept (mini: 2 per image at 0.99, 11 at 1)
        or class drawn. Memory: 3 P beside the task vectors, and per-sample gradients of 2²⁵ numbers or one P.

    Published:
        68.3 / – / 82.2 (P1; 69.8 / 73.9 / 81.8 re-run by ProDistill), 70.6 / 74.2 / 80.3 (P2).

    Source:
        Matena & Raffel 2022; images, normalisation and floor from FusionBench's CLIP recipe.

    Differs from the published code:
        FusionBench squares the gradient of a whole batch's Σ_x Σ_c √p_c log p_c, which mixes images and classes; here
        every image and class is squared alone, as the formula says. The floor is FusionBench's; the authors' own code
        takes max(F, 1e-6), and by default for the first model only, so that what no gradient reaches is the first
        model's.
    """
    check_count("mc_samples", mc_samples, least=0)
    check_positive("coverage", coverage)
    if floor != 0:
        check_positive("floor", floor)
    if coverage > 1:
        raise ValueError(f"coverage={coverage!r} is a share: it must lie in (0, 1]")
    tv, device = suite.task_vectors(), run.device
    drawn = training_images(suite, images, run.seed)
    encoder = prepare_encoder(suite.encoder, tv.pretrained, device)
    weighted = {key: torch.zeros_like(t[0]) for key, t in tv.vectors.items()}
    weights = {key: torch.zeros_like(t[0]) for key, t in tv.vectors.items()}
    for k, task in enumerate(run.bar(tv.tasks, "fisher", "task")):
        state = compute_state(suite.experts[task], device)
        x, head = suite.normalise(drawn[task].to(device)), suite.heads[task].to(device)
        with torch.no_grad():
            p = torch.cat([logits(features(encoder, state, part), head).softmax(-1) for part in x.split(64)])
        if mc_samples:
            which, directions = _drawn_classes(p, mc_samples, run.generator("classes", task))
        else:
            which, directions = _eigenvectors(p, coverage)
        params = {key: state[key] for key in tv.vectors}
        squares = squared_gradients(encoder, state, params, x, which, directions, head)
        information = {key: t.div_(len(x)).to(weights[key]) for key, t in squares.items()}
        norm = torch.stack([t.norm() for t in information.values()]).norm()
        scale = 1 / (norm + floor) if normalise and norm + floor > 0 else 1.0
        for key, t in information.items():
            t = (t + floor) * scale
            weights[key] += t
            weighted[key] += t * tv.vectors[key][k]
    # Without a floor an entry may have no weight in any task.
    mean = {
        key: torch.where(weights[key] > 0, t / weights[key], tv.vectors[key].mean(0)) for key, t in weighted.items()
    }
    hyper = {"images": images, "mc_samples": mc_samples, "coverage": coverage}
    hyper |= {"normalise": normalise, "floor": floor, "seed": run.seed}
    return Merged(add(tv, mean), "fisher", hyper, tv.tasks)


def squared_gradients(
    encoder: nn.Module,
    state: Mapping[str, Tensor],
    params: Mapping[str, Tensor],
    x: Tensor,
    which: Tensor,
    directions: Tensor,
    head: Tensor,
) -> dict[str, Tensor]:
    """Σ_i (∂⟨d_i, logits(x_{w_i})⟩ / ∂θ)², each square of one image's gradient.

    Arguments:
        encoder, state: what is differentiated, and its whole state dict.
        params: the part of the state dict to differentiate with respect to.
        x: normalised images ``[n, 3, h, w]``.
        which: int64 ``[m]``, index of an image.
        directions: ``[m, classes]``.
        head: ``[classes, dim]``.

    Returns:
        Name → sum of squares, as ``params``.
    """

    def along(params: dict[str, Tensor], image: Tensor, direction: Tensor) -> Tensor:
        return logits(features(encoder, {**state, **params}, image[None]), head)[0] @ direction

    each = vmap(grad(along), in_dims=(None, 0, 0))
    total = {key: torch.zeros_like(t) for key, t in params.items()}
    size = max(1, CHUNK // sum(t.numel() for t in params.values()))
    # The fused kernels cannot be vectorised over samples.
    with sdpa_kernel(SDPBackend.MATH):
        for index, direction in zip(which.split(size), directions.split(size), strict=True):
            for key, t in each(dict(params), x[index], direction).items():
                total[key] += t.square_().sum(0)
    return total


def _eigenvectors(p: Tensor, coverage: float) -> tuple[Tensor, Tensor]:
    """Images and √μ v of the largest eigenpairs of diag(p) − p pᵀ over all images: ``[m]`` and ``[m, classes]``."""
    p_ = p.double()
    values, vectors = torch.linalg.eigh(torch.diag_embed(p_) - p_[:, :, None] * p_[:, None, :])
    values = values.clamp_(min=0)
    ordered, order = values.flatten().sort(descending=True)
    reached = ordered.cumsum(0) >= coverage * ordered.sum()
    count = len(ordered) if coverage == 1 else int(reached.int().argmax()) + 1
    image, column = order[:count] // p.shape[1], order[:count] % p.shape[1]
    return image, (vectors[image, :, column] * ordered[:count, None].sqrt()).to(p)


def _drawn_classes(p: Tensor, samples: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images and (e_y − p) / √samples for classes y drawn from p: ``[m]`` and ``[m, classes]``."""
    drawn = torch.multinomial(p.cpu(), samples, replacement=True, generator=generator).to(p.device).flatten()
    which = torch.arange(len(p), device=p.device).repeat_interleave(samples)
    one_hot = torch.nn.functional.one_hot(drawn, p.shape[1]).to(p)
    return which, (one_hot - p[which]) / samples**0.5
