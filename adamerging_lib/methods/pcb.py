"""PCB-Merging: entries of the task vectors compete, the strongest of every task are averaged by their strength."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..task_vectors import TaskVectors
from .elementwise import add
from .merged import Merged
from .registry import register


@register("pcb", label="PCB-Merging", needs="nothing", source="Du et al. 2024")
def pcb(tv: TaskVectors, *, ratio: float = 0.05, scaling: float = 1.2, clip: float = 1e-4) -> Merged:
    """θ = θ0 + λ Σ_k W_k ⊙ T_k / Σ_k W_k, W_k the top of B_k = exp(K · norm(|T_k|)²) ⊙ tanh(T_k ⊙ Σ_j T_j), normed.

    norm(x) = (x − min x) / (max x − min x) over the whole vector. W_k = norm(max(B_k, q_k)), where q_k is the
    quantile of B_k that leaves the share ``ratio`` above it: all entries below weigh nothing.

    Arguments:
        tv: θ0 and T_k.
        ratio: share of entries kept per task, in (0, 1].
        scaling: λ.
        clip: share of the smallest and of the largest |T_k| that are set to the next one inside, before norm and in
            the average, so that outliers do not flatten all others; in [0, 0.5).

    Returns:
        The shared encoder.

    Raises:
        ValueError: for shares out of range.

    Touches:
        All floating-point tensors, each task's as one vector.

    Needs:
        Nothing; the published numbers searched λ and the ratio on validation data.

    Cost:
        Two selections by rank a task; memory of six vectors of P.

    Published:
        76.3 at ViT-B/32 and 87.5 at ViT-L/14 (pool P1), with validation.

    Source:
        Du et al. 2024 (Parameter Competition Balancing for Model Merging). The formula is that of the published key
        steps (pcb-merging.py); ratio and λ are those that its authors run with on CLIP.

    Differs from the published code:
        The text has softmax in place of exp and tanh. The repository's script for CLIP clips 1 % and sums
        normed vectors inside tanh, a third version. The ratio is a share of what is merged: the scripts count
        text towers that never move, so their 5 % is 6.5 % of a ViT-B/32 vision tower. Vectors without two different
        magnitudes weigh nothing, where 0/0 was.
    """
    for name, share, fits in (("ratio", ratio, 0 < ratio <= 1), ("clip", clip, 0 <= clip < 0.5)):
        if isinstance(share, bool) or not fits:
            raise ValueError(f"{name}={share!r} is out of range: ratio lies in (0, 1], clip in [0, 0.5); 5 % is 0.05")
    tasks = len(tv.tasks)
    sums = torch.cat([t.sum(0).reshape(-1) for t in tv.vectors.values()])
    weighted, weights = torch.zeros_like(sums), torch.zeros_like(sums)
    count = len(sums)
    for k in range(tasks):
        vector = torch.cat([t[k].reshape(-1) for t in tv.vectors.values()])
        magnitude = vector.abs()
        low, high = _smallest(magnitude, int(count * clip), max(0, int(count * (1 - clip) - 1)))
        magnitude.clamp_(low, high)
        weight = (magnitude - low).div_(high - low or 1).square_().mul_(tasks).exp_()
        weight *= (vector * sums).tanh_()
        cut, top = _smallest(weight, min(count - 1, int(count * (1 - ratio))), count - 1)
        weight.sub_(cut).div_(top - cut or 1).clamp_(min=0)
        weights += weight
        weighted += weight.mul_(magnitude).mul_(vector.sign_())
    weighted /= weights.clamp_(min=1e-12)
    parts = weighted.split([t[0].numel() for t in tv.vectors.values()])
    merged = {key: part.view(t.shape[1:]) for part, (key, t) in zip(parts, tv.vectors.items(), strict=True)}
    hyper = {"ratio": ratio, "scaling": float(scaling), "clip": clip}
    return Merged(add(tv, merged, scaling), "pcb", hyper, tv.tasks)


def _smallest(values: Tensor, *places: int) -> list[float]:
    """The exact entries at some places (from 0) of the sorted vector.

    NumPy's partition, because torch.kthvalue takes twice the time and four times the memory: it carries int64 indices.
    """
    parted = np.partition(values.cpu().numpy(), places)
    return [float(parted[place]) for place in places]
