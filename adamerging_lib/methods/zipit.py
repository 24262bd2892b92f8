"""ZipIt's matching by activations: units and heads of all experts are brought into one order, then averaged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from ..forward import compute_state, features, prepare_encoder, resolve_device
from ..layers import Units, units
from ..learning.adaptation import Adaptation, learns
from ..merged import Merged
from ..probing.activations import recording, training_images
from ..state import StateDict
from ..task_vectors import TaskVectors
from ..vectors.elementwise import add
from .registry import register

if TYPE_CHECKING:
    from ..suite import Suite

BATCH = 32
_COUNTS = ("num_heads", "num_attention_heads", "n_heads")  # what attention modules call the number of their heads


@dataclass(frozen=True)
class Part:
    """Units of one block that may change places: ``count`` of them, as rows of some tensors and columns of one."""

    block: str
    kind: str
    count: int
    rows: tuple[str, ...]
    columns: str

    def permuted(self, state: Mapping[str, Tensor], order: Tensor) -> dict[str, Tensor]:
        """The part's tensors with unit ``order[i]`` in place i; queries, keys and values move together."""
        columns = state[self.columns]
        # The map that reads the units has them as its inputs, so it is turned for the same move of rows.
        moved = {self.columns: _moved(columns.t(), self.count, columns.shape[1], order).t()}
        return moved | {key: _moved(state[key], self.count, columns.shape[1], order) for key in self.rows}


@register(
    "zipit",
    label="ZipIt!",
    needs="unlabelled training images",
    source="Stoica et al. 2024",
    takes="suite",
    adaptive=True,
    trains=True,
)
@learns(images="train")
def zipit(
    suite: Suite,
    run: Adaptation,
    *,
    images: int = 64,
) -> Merged:
    """θ = (1/K) Σ_k π_k(θ_k), π_k the order of units and heads that correlates most with the first expert's.

    Arguments:
        suite: encoder, checkpoints and training images; labels are never read.
        images: training images per task; all tasks' images run through every expert.
        seed: of the choice of images.

    Returns:
        The shared encoder. `unit_matches` says which share of the units had to move.

    Raises:
        ValueError: for an encoder without MLPs or attention of a known layout, or with tensors beside them whose
            order is that of the units or heads too, such as a bias of positions for each head.

    Touches:
        MLPs and attention are permuted, a rearrangement under which an expert computes the same; then all
        floating-point tensors are averaged.

    Needs:
        Unlabelled training images of every task.

    Cost:
        2 (K − 1) K · images forward passes; one assignment problem per block and part, D³ at worst. Memory: one D×D
        correlation matrix in float64 per part.

    Published:
        None found for CLIP; the authors' issue 31 calls vision transformers very hard.

    Source:
        Stoica et al. 2024 (ZipIt!), Section 4, in the permuting form that its code offers beside the greedy one.

    Differs from the published code:
        That one is for convolutional networks, where it also zips units of one model together and can stop half way
        through the network. Here the residual stream is shared, as it is where all experts were fine-tuned from one
        model; heads are compared as wholes, by the mean correlation of their channels.
    """
    vectors, tv, _ = _aligned(suite, run, images)
    state = add(tv, {key: t.mean(0) for key, t in vectors.items()})
    return Merged(state, "zipit", {"images": images, "seed": run.seed}, tv.tasks)


def unit_matches(
    suite: Suite, *, images: int = 64, seed: int = 0, device: str | torch.device = "cpu", progress: bool = True
) -> pd.DataFrame:
    """How many units and heads of the experts stay in place when matched with the first expert's.

    Arguments:
        suite, images, seed, device, progress: as for `zipit`.

    Returns:
        One row per expert but the first, block and kind: ``task, block, kind, units, in_place`` (share).
    """
    run = Adaptation(images="train", seed=seed, device=resolve_device(device), progress=progress)
    return _aligned(suite, run, images)[2]


def _aligned(suite: Suite, run: Adaptation, images: int) -> tuple[dict[str, Tensor], TaskVectors, pd.DataFrame]:
    """Task vectors of the permuted experts, the plain ones, and the table of matches."""
    tv, device = suite.task_vectors(), run.device
    encoder = prepare_encoder(suite.encoder, tv.pretrained, device)
    parts = list(parts_of(encoder, tv.pretrained))
    drawn = torch.cat(list(training_images(suite, images, run.seed).values()))
    vectors, rows = dict(tv.vectors), []
    first = compute_state(suite.experts[tv.tasks[0]], device)
    for k in run.bar(range(1, len(tv.tasks)), "zipit", "expert"):
        other = compute_state(suite.experts[tv.tasks[k]], device)
        # All parts are matched on the expert as it is: a permuted part gives its block the same output, so no part's
        # correlations depend on what was done to another.
        batches = (suite.normalise(batch.to(device)) for batch in drawn.split(BATCH))
        similar = correlations(encoder, first, other, batches, [part.columns for part in parts])
        for part in parts:
            order = matching(similar[part.columns], part.count)
            stay = order == torch.arange(part.count)
            rows.append((tv.tasks[k], part.block, part.kind, part.count, float(stay.double().mean())))
            if not bool(stay.all()):
                for key, t in part.permuted(suite.experts[tv.tasks[k]], order).items():
                    # π(θ_k) − θ0 and not π(T_k): θ0 stays in the order that it shares with the first expert. Into a
                    # copy, because the plain task vectors are handed back too.
                    base = tv.pretrained[key].to(vectors[key])
                    vectors[key] = vectors[key].index_copy(0, torch.tensor([k]), (t.to(base) - base)[None])
    return vectors, tv, pd.DataFrame(rows, columns=["task", "block", "kind", "units", "in_place"])


def parts_of(encoder: nn.Module, state: StateDict) -> Iterator[Part]:
    """The parts of an encoder whose units may change places, block by block."""
    found = False
    for part in units(state):
        width, heads = state[part.columns].shape[1], part.kind == "attention heads"
        count = _heads(encoder, part.module) if heads else width
        # Fused queries, keys and values are three stacks of rows; where several heads share keys there are fewer rows.
        if any(len(state[name]) % width for name in part.rows):
            beside = part.rows[0].removeprefix(part.block + ".")
            raise ValueError(f"{part.columns!r} takes {width} inputs, which {beside!r} beside it does not give")
        if strange := _bound(part, state):
            raise ValueError(f"{strange!r} belongs to the {part.kind} of its block too, and zipit cannot move it")
        found = True
        yield Part(part.block, part.kind, count, part.rows, part.columns)
    if not found:
        raise ValueError("the encoder has no MLP or attention of a known layout (open_clip, timm, Hugging Face)")


def _heads(encoder: nn.Module, name: str) -> int:
    module = encoder.get_submodule(name)
    count = next((getattr(module, name) for name in _COUNTS if isinstance(getattr(module, name, None), int)), None)
    if count is None:
        raise ValueError(f"{name!r} is a {type(module).__name__}, which does not tell its number of heads")
    return count


def _bound(part: Units, state: StateDict) -> str | None:
    """A tensor beside the units that depends on their order too, such as a bias of positions for each head."""
    if part.module == part.block:
        return None
    known = {*part.rows, part.columns, part.columns.removesuffix("weight") + "bias"}
    beside = (key for key in state if key.startswith(f"{part.module}.") and key not in known)
    # One norm of queries and keys serves all heads.
    return next((key for key in beside if key.split(".")[-2] not in ("q_norm", "k_norm")), None)


def correlations(
    encoder: nn.Module, first: StateDict, other: StateDict, batches: Iterable[Tensor], names: Iterable[str]
) -> dict[str, Tensor]:
    """Pearson correlation of what flows into maps under two state dicts on the same images.

    Arguments:
        encoder: template in evaluation mode.
        first, other: whole state dicts.
        batches: normalised images; only one batch's activations are ever held.
        names: weights of the maps.

    Returns:
        Name → correlation of the first's inputs (rows) with the other's (columns) ``[in, in]``, float64; 0 for an
        input that never varies.
    """
    sums: dict[str, list[Tensor]] = {}
    count: dict[str, int] = {}
    names = set(names)
    for batch in batches:
        seen: list[dict[str, Tensor]] = [{}, {}]
        for state, into in zip((first, other), seen, strict=True):

            def keep(name: str, x: Tensor, into: dict[str, Tensor] = into) -> None:
                if name in names:
                    into[name] = x.reshape(-1, x.shape[-1])

            with torch.no_grad(), recording(encoder, keep):
                features(encoder, state, batch)
        for name, x in seen[0].items():
            y = seen[1][name]
            # Five sums are all that a correlation needs, so no activations are kept. A batch is multiplied in the
            # encoder's dtype, which is fast; batches are added in float64, because the differences below cancel.
            terms = [x.t() @ y, x.sum(0), y.sum(0), x.square().sum(0), y.square().sum(0)]
            sums[name] = [s + t.double() for s, t in zip(sums.get(name, [0.0] * 5), terms, strict=True)]
            count[name] = count.get(name, 0) + len(x)
    found = {}
    for name, (xy, x, y, xx, yy) in sums.items():
        n = count[name]
        covariance = xy / n - torch.outer(x / n, y / n)
        # Rounding can make the variance of a constant input slightly negative.
        spread = torch.outer((xx / n - (x / n) ** 2).clamp_(min=0), (yy / n - (y / n) ** 2).clamp_(min=0)).sqrt()
        found[name] = torch.where(spread > 0, covariance / spread, 0.0)
    return found


def matching(correlation: Tensor, count: int) -> Tensor:
    """For each of the first's units the other's unit that takes its place, int64 ``[count]``: the largest total.

    Arguments:
        correlation: ``[D, D]``, rows the first's channels.
        count: units of D / count channels each; a unit's similarity is the mean over its channels.
    """
    # Only channel c of one head with channel c of the other: heads move as wholes, their channels stay in order.
    units = correlation.reshape(count, -1, count, correlation.shape[0] // count)
    similarity = units.diagonal(dim1=1, dim2=3).mean(-1)
    return torch.from_numpy(linear_sum_assignment(similarity.cpu().numpy(), maximize=True)[1])


def _moved(t: Tensor, count: int, width: int, order: Tensor) -> Tensor:
    """Rows of a tensor, one or more stacks of ``width`` (query, key, value), unit by unit in a new order."""
    return t.reshape(-1, count, width // count, *t.shape[1:])[:, order].reshape(t.shape)
