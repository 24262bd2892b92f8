"""Combining the gradients of K tasks into one: one weight per task, found from their K×K Gram matrix alone.

Each rule maps the Gram matrix G_ij = ⟨g_i, g_j⟩ to weights w, and the combined gradient is Σ_k w_k g_k, so that nothing
of the parameters' size is touched twice. The same rules serve joint training (P parameters) and AdaMerging (K·R
coefficients).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ..runtime.values import one_of
from .recipes import check_positive
from .streams import seeded

Combine = Callable[[Tensor, int], Tensor]
"""(Gram matrix ``[K, K]``, step) → weights ``[K]`` in float64 on the CPU."""

COMBINERS = ("pcgrad", "wpcgrad", "cagrad", "nash_mtl", "min_norm")


def combiner(
    name: str,
    tasks: Sequence[str],
    *,
    seed: int = 0,
    priorities: Mapping[str, float] | None = None,
    c: float | None = None,
) -> Combine:
    """A rule that combines the tasks' gradients.

    Arguments:
        name: ``pcgrad`` (Yu et al. 2020), ``wpcgrad`` (Bohn et al. 2024), ``cagrad`` (Liu et al. 2021), ``nash_mtl``
            (Navon et al. 2022) or ``min_norm`` (MGDA, Désidéri 2012; Sener & Koltun 2018).
        tasks: K names.
        seed: of PCGrad's and wPCGrad's chance; a step draws the same whatever was drawn before.
        priorities: task → positive number, for ``wpcgrad``: of two tasks in conflict, one keeps its gradient with a
            chance proportional to its number. Default 1; other rules take none.
        c: CAGrad's radius, at least 0 (0.4; 0 is the mean gradient); other rules take none.

    Returns:
        The rule. A Gram matrix with NaN gives NaN weights, one of zeros gives ones.

    Raises:
        ValueError: for an unknown name, or unusable priorities or radius.
    """
    one_of("combine", name, COMBINERS)
    if priorities and name != "wpcgrad":
        raise ValueError(f"priorities are wPCGrad's: leave them out for {name}")
    if c is not None and name != "cagrad":
        raise ValueError(f"c={c!r} is CAGrad's radius: leave it out for {name}")
    radius = 0.4 if c is None else c
    if not 0 <= radius < float("inf"):
        raise ValueError(f"c={c!r} must be a number of at least 0")
    weights = task_weights(priorities, tasks, "priorities")

    def rule(gram: Tensor, step: int) -> Tensor:
        gram = gram.detach().double().cpu()
        scale = gram.diagonal().mean()
        if not bool(torch.isfinite(gram).all()):
            return torch.full_like(gram[0], float("nan"))
        if scale == 0:
            return torch.ones_like(gram[0])
        # Every rule gives the same direction whatever the gradients' unit, but solvers have absolute tolerances.
        gram = gram / scale
        if name == "nash_mtl":
            return nash_weights(gram) / (len(gram) * scale) ** 0.5
        if name == "wpcgrad":
            return projected_weights(gram, weights, seeded("combine", seed, step))
        return _torchjd(name, gram, radius, seeded("combine", seed, step))

    return rule


def task_weights(given: Mapping[str, float] | None, tasks: Sequence[str], what: str) -> Tensor:
    """Task → number as a tensor ``[K]``, 1 for tasks not named; a ValueError names what is wrong."""
    given = dict(given or {})
    if unknown := [task for task in given if task not in tasks]:
        raise ValueError(f"{what} name {', '.join(map(repr, unknown))}, which is no task; known: {', '.join(tasks)}")
    for task, value in given.items():
        check_positive(f"{what}[{task!r}]", value)
    return torch.tensor([given.get(task, 1.0) for task in tasks], dtype=torch.float64)


def projected_weights(gram: Tensor, priorities: Tensor, generator: torch.Generator) -> Tensor:
    """wPCGrad: walk the pairs in random order; of each, one member drawn by priority yields where they conflict.

    The member a that yields, drawn with probability p_b / (p_a + p_b), loses its part along the other's original
    gradient: g_a ← g_a − ⟨g_a, g_b⟩ / ‖g_b‖² · g_b where ⟨g_a, g_b⟩ < 0. Without conflict all weights are 1.

    Arguments:
        gram: ``[K, K]``, float64.
        priorities: p, positive ``[K]``.
        generator: order and draws come from it.

    Returns:
        Weights of the sum ``[K]``.
    """
    rows = torch.eye(len(gram), dtype=gram.dtype)  # row k: g_k as it is now, in terms of the original gradients
    pairs = list(itertools.combinations(range(len(gram)), 2))
    order = torch.randperm(len(pairs), generator=generator).tolist()
    draws = torch.rand(len(pairs), generator=generator, dtype=torch.float64).tolist()
    for place, draw in zip(order, draws, strict=True):
        a, b = pairs[place]
        if draw * (priorities[a] + priorities[b]) >= priorities[b]:
            a, b = b, a
        product = rows[a] @ gram[b]
        if product < 0:
            rows[a, b] -= product / gram[b, b]
    return rows.sum(0)


def nash_weights(gram: Tensor, iterations: int = 200) -> Tensor:
    """Nash-MTL: the α > 0 with G α = 1/α, element by element.

    It is the minimum of ½ αᵀ G α − Σ_k log α_k, which is strictly convex and self-concordant, so damped Newton finds
    it from any start without a solver's tolerance. (The published code, and torchjd with it, linearises the problem
    some 20 times and hands each to ECOS, which is no longer kept and has no wheels for Python 3.13.)

    Arguments:
        gram: ``[K, K]``, float64, of unit mean diagonal.
        iterations: at most; a handful is needed.

    Returns:
        α ``[K]``. Where no solution exists (a task without gradient, or gradients that cancel) a ridge of 1e-10 keeps
        it finite.
    """
    gram = gram + 1e-10 * torch.eye(len(gram), dtype=gram.dtype)
    alpha = gram.diagonal().rsqrt()
    for _ in range(iterations):
        slope = gram @ alpha - 1 / alpha
        step = torch.linalg.solve(gram + torch.diag(alpha**-2), slope)
        decrement = (slope @ step).clamp(min=0).sqrt()
        # The damped step stays positive; within a quarter of the unit ball full steps converge quadratically.
        alpha = alpha - step / (1 + decrement if decrement > 0.25 else 1)
        if decrement < 1e-9:
            break
    return alpha


def _torchjd(name: str, gram: Tensor, c: float, generator: torch.Generator) -> Tensor:
    from torchjd import aggregation  # a second of imports, for few users

    if name == "cagrad":
        return aggregation.CAGradWeighting(c=c, norm_eps=1e-9)(gram)
    if name == "min_norm":
        return aggregation.MGDAWeighting(epsilon=1e-6, max_iters=1000)(gram)
    # PCGrad draws from the global generator: lend it one, and give the user's back.
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(generator.get_state())
        return aggregation.PCGradWeighting()(gram)
