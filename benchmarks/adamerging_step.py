"""What one layer-wise AdaMerging step costs, against a plain forward and backward of the same images.

The gradient of λ needs one merge and one inner product with the task vectors a step, both linear in the number of
parameters, beside a forward and backward whose cost grows with the images too. The published way builds θ(λ) with a
graph once a task (its scripts even once a batch) and back-propagates through all those merges.

All variants run in one process on the same images, in turn, so that a machine that slows down slows all of them; the
ratios are medians over repeats of the ratio within one repeat.

    python benchmarks/adamerging_step.py --case mini --case ViT-B-32
"""

from __future__ import annotations

import argparse
import datetime as dt
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call

from adamerging_lib import records
from adamerging_lib._compat import import_open_clip
from adamerging_lib.encoders import MiniConfig, mini_clip
from adamerging_lib.forward import entropy, features, logits, resolve_device
from adamerging_lib.methods.objective import Objective
from adamerging_lib.task_vectors import TaskVectors

RESULT = Path(__file__).parent / "results" / "adamerging_step.json"
TASKS = 8


@dataclass(frozen=True)
class Case:
    """One encoder; ``batches`` × ``batch_size`` images a task and step."""

    encoder: Callable[[], nn.Module]
    side: int
    dim: int
    batches: int
    batch_size: int
    classes: tuple[int, ...]


def vit_b_32() -> nn.Module:
    """open_clip's image tower of CLIP ViT-B/32."""
    vision = import_open_clip().transformer.VisionTransformer
    return vision(image_size=224, patch_size=32, width=768, layers=12, heads=12, mlp_ratio=4, output_dim=512)


CASES = {
    "mini": Case(lambda: mini_clip().visual, MiniConfig.image_size, MiniConfig.embed_dim, 1, 16, (10,) * TASKS),
    # A quarter of the paper's 256 images a step, so that two cores finish within minutes: merging, whose cost does not
    # depend on the images, weighs four times as much as in the paper's setting. Head sizes are the tasks'.
    "ViT-B-32": Case(vit_b_32, 224, 512, 1, 8, (397, 196, 45, 10, 10, 43, 10, 47)),
}


def build(case: Case, device: torch.device, seed: int) -> tuple[Objective, Tensor, Tensor]:
    """Randomly initialised encoder, task vectors of a tenth of its scale, heads, λ and images."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = case.encoder().eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    state = {key: t.detach().clone() for key, t in encoder.state_dict().items()}
    vectors = {
        key: 0.1 * t.std(correction=0) * torch.randn((TASKS, *t.shape), generator=generator)
        for key, t in state.items() if t.is_floating_point()
    }  # fmt: skip
    tasks = tuple(f"task_{k}" for k in range(TASKS))
    tv = TaskVectors(tasks, state, vectors).to(device)
    heads = tuple(torch.randn(c, case.dim, generator=generator).to(device) * 100 / case.dim**0.5 for c in case.classes)
    objective = Objective(tv, tv.rows("tensor"), encoder.to(device), heads, lambda x: x.float() / 127.5 - 1, clamp=True)
    count = TASKS * case.batches * case.batch_size
    images = torch.randint(0, 256, (count, 3, case.side, case.side), generator=generator, dtype=torch.uint8).to(device)
    raw = torch.full((TASKS, len(objective.rows.names)), 0.3, device=device)
    return objective, raw, images


def plain_step(objective: Objective, images: Tensor, batches: int) -> tuple[Tensor, ...]:
    """Forward and backward with respect to all parameters of one fixed model: no merging at all."""
    tv = objective.tv
    leaves = {key: tv.pretrained[key].requires_grad_() for key in tv.vectors}
    unit = features(objective.encoder, {**tv.pretrained, **leaves}, objective.normalise(images))
    count = len(images) // TASKS
    total = sum(
        entropy(logits(part, head)).sum() for part, head in zip(unit.split(count), objective.heads, strict=True)
    )
    grads = torch.autograd.grad(total * (batches / count), list(leaves.values()))
    for leaf in leaves.values():
        leaf.requires_grad_(False)
    return grads


def autograd_step(objective: Objective, raw: Tensor, images: Tensor, batches: int) -> Tensor:
    """The gradient through the merge itself, merged anew for every task, one backward: the published way."""
    tv, rows = objective.tv, objective.rows
    leaf = raw.detach().clone().requires_grad_()
    total: Tensor = torch.zeros((), device=raw.device)
    count = len(images) // TASKS
    for part, head in zip(images.split(count), objective.heads, strict=True):
        used = leaf.clamp(0, 1)
        state = dict(tv.pretrained)
        for key, t in tv.vectors.items():
            state[key] = tv.pretrained[key] + torch.einsum("k,k...->...", used[:, rows.index[key]], t)
        unit = nn.functional.normalize(functional_call(objective.encoder, state, (objective.normalise(part),)), dim=-1)
        total = total + entropy(logits(unit, head)).sum() * (batches / count)
    return torch.autograd.grad(total, leaf)[0]


def timed(function: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call, the accelerator's queue included."""
    start = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def measure(name: str, repeats: int, device: torch.device, seed: int, *, published: bool) -> list[dict[str, object]]:
    """Rows of the record for one case: seconds a step, and what they are compared with."""
    case = CASES[name]
    objective, raw, images = build(case, device, seed)
    variants: dict[str, Callable[[], object]] = {
        "plain": lambda: plain_step(objective, images, case.batches),
        "ours": lambda: objective.losses_and_gradient(raw, images, case.batches),
    }
    if published:
        variants["autograd"] = lambda: autograd_step(objective, raw, images, case.batches)
        ours, theirs = objective.losses_and_gradient(raw, images, case.batches)[1], variants["autograd"]()
        torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-3 * float(theirs.abs().max()))
    for variant in variants.values():
        variant()
    seconds: dict[str, list[float]] = {key: [] for key in variants}
    for _ in range(repeats):
        for key, variant in variants.items():
            seconds[key].append(timed(variant, device))

    def row(quantity: str, value: str, baseline: str) -> dict[str, object]:
        ratios = [a / b for a, b in zip(seconds[value], seconds[baseline], strict=True)]
        return {
            "case": name, "quantity": quantity, "images": len(images), "repeats": repeats,
            "value": round(statistics.median(seconds[value]), 5),
            "baseline": round(statistics.median(seconds[baseline]), 5),
            "ratio": round(statistics.median(ratios), 3),
        }  # fmt: skip

    rows = [row("step against plain forward and backward, seconds", "ours", "plain")]
    if published:
        rows.append(row("autograd through a merge a task against step, seconds", "autograd", "ours"))
    return rows


def main() -> None:
    """Run the cases and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", action="append", choices=CASES, help="default: all")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-published", action="store_true", help="leave out autograd through the merge")
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args()
    started, clock = dt.datetime.now(dt.UTC), time.perf_counter()
    device = resolve_device(options.device)
    cases = options.case or list(CASES)
    rows = []
    for name in cases:
        rows += measure(name, options.repeats, device, options.seed, published=not options.no_published)
        for row in rows[-2:]:
            print(row)
    parameters = {"cases": cases, "repeats": options.repeats, "tasks": TASKS, "device": device.type}
    record = records.new(
        "adamerging_step", "benchmark", parameters, None, rows, [options.seed], started,
        time.perf_counter() - clock, device=device,
    )  # fmt: skip
    records.write(record, options.output)


if __name__ == "__main__":
    main()
