"""RegMean and RegMean++: every linear map by least squares on what flows into it."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..forward import compute_state, features, prepare_encoder
from ..layers import read
from ..learning.adaptation import Adaptation, learns
from ..merged import Merged
from ..probing.activations import gram_matrices, training_images
from ..probing.blocks import BlockChain
from ..runtime.values import is_number, one_of
from ..vectors.elementwise import add
from .registry import register

if TYPE_CHECKING:
    from ..suite import Suite

BATCH = 32
# In units of a Gram matrix's mean diagonal: input directions that no image reaches then take the plain average.
JITTER = 1e-6
LAST_NORMS = ("average", "pretrained")
_ATTENTION = re.compile(r"(?:^|\.)(?:self_)?attn\.|(?:^|\.)attention\.")


@register(
    "regmean",
    label="RegMean",
    needs="unlabelled training images",
    source="Jin et al. 2023",
    takes="suite",
    adaptive=True,
    trains=True,
)
@learns(images="train")
def regmean(
    suite: Suite,
    run: Adaptation,
    *,
    images: int = 256,
    off_diagonal: float = 0.95,
    mlp_only: bool = False,
) -> Merged:
    """W = (Σ_k G_k)⁻¹ Σ_k G_k W_k (W as [in, out]), G_k = X_kᵀX_k / n: nearest to every W_k on its own inputs.

    Arguments:
        suite: encoder, checkpoints and training images; labels are never read.
        images: training images per task (256).
        off_diagonal: factor of G's off-diagonal entries, in [0, 1]; 1 is no shrinkage.
        mlp_only: average attention's maps too, as published results whose hooks missed nn.MultiheadAttention did.
        seed: of the choice of images.

    Returns:
        The shared encoder.

    Raises:
        ValueError: for unusable arguments, or attention whose inputs cannot be recorded.

    Touches:
        Weights of linear maps, attention's fused projections among them; all else (biases, norms, embeddings, the
        final projection where it is not a module) is the plain average.

    Needs:
        Unlabelled training images of every task.

    Cost:
        K · images forward passes, one D×D solve per map. Memory: for every map two D×D Gram matrices and one D×D′
        product in float64, whatever K is (ViT-B/32: about 3 GB).

    Published:
        71.8 / – / 83.7 (P1, MLP maps only; 79.2 / 82.0 / 87.5 re-run by ProDistill), 82.4 / 86.0 / 90.4 (P2).

    Source:
        Jin et al. 2023 (Dataless Knowledge Fusion); 0.95 from FusionBench's CLIP recipe.

    Differs from the published code:
        Attention of open_clip's towers is seen, see ``mlp_only``. Solved by Cholesky in float64 with a jitter of
        1e-6 of G's mean diagonal, added to every G_k, instead of an inverse in float32.
    """
    _check(off_diagonal)
    tv, device = suite.task_vectors(), run.device
    drawn = training_images(suite, images, run.seed)
    encoder = prepare_encoder(suite.encoder, tv.pretrained, device)
    equations = NormalEquations(off_diagonal)
    for k, task in enumerate(run.bar(tv.tasks, "regmean", "task")):
        state = compute_state(suite.experts[task], device)
        batches = (suite.normalise(batch.to(device)) for batch in drawn[task].split(BATCH))
        for name, gram in gram_matrices(encoder, partial(features, encoder, state), batches).items():
            if not (mlp_only and _ATTENTION.search(name)):
                key = tv.tied.get(name, name)
                equations.add(key, gram, tv.vectors[key][k])
    vector = {key: t.mean(0) for key, t in tv.vectors.items()}
    vector |= {key: t.to(vector[key]) for key, t in equations.solve().items()}
    hyper = {"images": images, "off_diagonal": off_diagonal, "mlp_only": mlp_only, "seed": run.seed}
    return Merged(add(tv, vector), "regmean", hyper, tv.tasks)


@register(
    "regmean_pp",
    label="RegMean++",
    needs="unlabelled training images",
    source="Nguyen et al. 2025",
    takes="suite",
    adaptive=True,
    trains=True,
)
@learns(images="train")
def regmean_pp(
    suite: Suite,
    run: Adaptation,
    *,
    images: int = 256,
    off_diagonal: float = 0.95,
    mlp_only: bool = False,
    last_norm: str = "average",
) -> Merged:
    """As RegMean, block after block: G_k from θ_k's block fed with what the blocks merged so far put out.

    Arguments:
        suite: encoder, checkpoints and training images; labels are never read.
        images: training images per task (256).
        off_diagonal: factor of G's off-diagonal entries, in [0, 1]; 1 is no shrinkage.
        mlp_only: average attention's maps.
        last_norm: what becomes of normalisation behind the blocks: ``average`` of the experts', as of all that is no
            linear map, or ``pretrained``, θ0's, as published.
        seed: of the choice of images.

    Returns:
        The shared encoder.

    Raises:
        ValueError: for unusable arguments, or an encoder without a chain of transformer blocks.

    Touches:
        Weights of linear maps inside blocks; all else is the plain average, the embeddings from the start, the last
        norm by ``last_norm``.

    Needs:
        Unlabelled training images of every task.

    Cost:
        Twice RegMean's forward passes. Memory: tokens of all K · images images (ViT-B/32, K = 8: 0.3 GB) and one
        block's matrices.

    Published:
        84.4 / 87.2 / 91.0 (P2).

    Source:
        Nguyen et al. 2025 (RegMean++); recipe and the use of the expert's own block from FusionBench.

    Differs from the published code:
        As `regmean`. There the last norm stays as in θ0, see ``last_norm``: on 400 images per task of the mini suite
        that gives 63.4 percent, and the average 63.3. The published code never sees a final projection, which the
        checkpoints that it was written for share; one that differs between experts is averaged.
    """
    _check(off_diagonal)
    one_of("last_norm", last_norm, LAST_NORMS)
    tv, device = suite.task_vectors(), run.device
    drawn = training_images(suite, images, run.seed)
    encoder = prepare_encoder(suite.encoder, tv.pretrained, device)
    vector = {key: t.mean(0) for key, t in tv.vectors.items()}
    merged = compute_state(add(tv, vector), device)
    chain = BlockChain(encoder, merged, suite.normalise(drawn[tv.tasks[0]][:1].to(device)))
    if last_norm == "pretrained":
        behind = [key for key, layer in read(vector).items() if (layer.group, layer.role) == ("head", "norm")]
        vector |= {key: torch.zeros_like(vector[key]) for key in behind}
    with torch.no_grad():
        streams = {
            task: [chain.enter(merged, suite.normalise(batch.to(device))) for batch in drawn[task].split(BATCH)]
            for task in tv.tasks
        }
    for index in run.bar(range(len(chain)), "regmean_pp", "block"):
        prefix, equations = chain.prefixes[index], NormalEquations(off_diagonal)
        for k, task in enumerate(tv.tasks):
            own = {key: t for key, t in suite.experts[task].items() if key.startswith(prefix)}
            block = partial(chain.run, index, compute_state(own, device))
            for name, gram in gram_matrices(chain.blocks[index], block, streams[task]).items():
                if not (mlp_only and _ATTENTION.search(prefix + name)):
                    key = tv.tied.get(prefix + name, prefix + name)
                    equations.add(key, gram, tv.vectors[key][k])
        vector |= {key: t.to(vector[key]) for key, t in equations.solve().items()}
        merged = compute_state(add(tv, vector), device)
        with torch.no_grad():
            streams = {task: [chain.run(index, merged, x) for x in batches] for task, batches in streams.items()}
    hyper = {"images": images, "off_diagonal": off_diagonal, "mlp_only": mlp_only}
    hyper |= {"last_norm": last_norm, "seed": run.seed}
    return Merged(add(tv, vector), "regmean_pp", hyper, tv.tasks)


class NormalEquations:
    """(Σ_k G_k) W = Σ_k G_k W_k of every map, summed task by task so that memory does not grow with K.

    Arguments:
        off_diagonal: factor of G's off-diagonal entries.
        jitter: added to G's diagonal, in units of its mean.
    """

    def __init__(self, off_diagonal: float, jitter: float = JITTER) -> None:
        self.off_diagonal, self.jitter = off_diagonal, jitter
        self.sums: dict[str, tuple[Tensor, Tensor]] = {}

    def add(self, name: str, gram: Tensor, weight: Tensor) -> None:
        """One task's G ``[in, in]`` and W ``[out, in]``; W may be counted from θ0, as the solution then is."""
        diagonal = gram.diagonal()
        # The smallest addend keeps a map that only ever saw zeros solvable: it takes the average.
        diagonal = diagonal * (1 - self.off_diagonal) + self.jitter * diagonal.mean() + 1e-30
        gram = self.off_diagonal * gram + diagonal.diag()
        right = gram @ weight.to(gram).t()
        if name in self.sums:
            gram, right = gram.add_(self.sums[name][0]), right.add_(self.sums[name][1])
        self.sums[name] = gram, right

    def solve(self) -> dict[str, Tensor]:
        """Map → W ``[out, in]``, float64."""
        return {
            name: torch.cholesky_solve(right, torch.linalg.cholesky(gram)).t()
            for name, (gram, right) in self.sums.items()
        }


def _check(off_diagonal: float) -> None:
    if not (is_number(off_diagonal) and 0 <= off_diagonal <= 1):
        raise ValueError(f"off_diagonal={off_diagonal!r} must lie in [0, 1]: 1 is no shrinkage")
