"""What one layer-wise AdaMerging step costs, in seconds and in memory, beside other ways to the same gradient.

The gradient of λ needs one merge and one inner product with the task vectors per step, both linear in the number of
parameters, beside a forward and backward whose cost grows with the images too. FusionBench merges once per step with a
graph and back-propagates through that merge once per task; the published scripts merge anew for every forward. (They do
so on the CPU and keep all these merges until one backward. Here each is done on the device, and its backward follows at
once, which takes less of both.)

All variants run in one process on the same images, in turn, so that a machine that slows down slows all of them; the
ratios are medians over repeats of the ratio within one repeat. Seconds are those of one core, summed over threads, on a
CPU, and of the clock on a GPU. Encoders, task vectors and images are random.

    python benchmarks/adamerging_step.py --case mini --case ViT-B-32
    python benchmarks/adamerging_step.py --device cuda --case ViT-L-14 --tasks 20 --passes 20 --autocast bfloat16
    python benchmarks/adamerging_step.py --case ViT-B-32 --tasks 8 --tasks 20 --components

With ``--components`` a step learns a coefficient per singular component of TSV-M's basis instead, beside the plain one
alone: nobody else has such a step.
"""

from __future__ import annotations

import argparse
import datetime as dt
import re
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from adamerging_lib import records
from adamerging_lib.forward import entropy, logits, raw_features, resolve_device
from adamerging_lib.learning.model import EncoderWithHeads
from adamerging_lib.learning.objective import Objective
from adamerging_lib.runtime.compat import import_open_clip
from adamerging_lib.runtime.cost import measured
from adamerging_lib.runtime.devices import DTYPES
from adamerging_lib.runtime.environment import environment
from adamerging_lib.task_vectors import TaskVectors
from adamerging_lib.vectors.components import Components
from adamerging_lib.vectors.spectral import matrices
from adamerging_lib.worlds.encoders import MiniConfig, mini_clip

RESULTS = Path(__file__).parent / "results"
# Of the eight tasks, then of the twelve that make them twenty.
CLASSES = (397, 196, 45, 10, 10, 43, 10, 47, 100, 10, 102, 37, 10, 2, 7, 101, 10, 26, 10, 2)


@dataclass(frozen=True)
class Case:
    """One encoder; ``batches`` × ``batch_size`` images per task and step."""

    encoder: Callable[[], nn.Module]
    side: int
    dim: int
    batches: int
    batch_size: int


def tower(patch: int, width: int, layers: int, dim: int) -> nn.Module:
    """open_clip's image tower of a CLIP."""
    vision = import_open_clip().transformer.VisionTransformer
    return vision(224, patch, width, layers, width // 64, 4, output_dim=dim)


CASES = {
    "mini": Case(lambda: mini_clip().visual, MiniConfig.image_size, MiniConfig.embed_dim, 1, 16),
    "ViT-B-32": Case(lambda: tower(32, 768, 12, 512), 224, 512, 2, 16),
    "ViT-B-16": Case(lambda: tower(16, 768, 12, 512), 224, 512, 2, 16),
    "ViT-L-14": Case(lambda: tower(14, 1024, 24, 768), 224, 768, 2, 16),
}


def build(
    case: Case, tasks: int, device: torch.device, seed: int, *, components: bool = False, **options: object
) -> tuple[Objective, Tensor, Tensor]:
    """Randomly initialised encoder, task vectors of a tenth of its scale, heads, λ and images.

    Arguments:
        case, tasks, device, seed: what, how many, where.
        components: whether matrices come in TSV-M's basis, with a coefficient per component.
        options: fields of `Objective` and of its model, and ``vectors_dtype``.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = case.encoder().eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    state = {key: t.detach().clone() for key, t in encoder.state_dict().items()}
    there = torch.Generator(device).manual_seed(seed)  # a CPU takes minutes to draw what a GPU draws in seconds
    kind, vectors = options.pop("vectors_dtype") or torch.float32, {}
    for key, t in state.items():
        if t.is_floating_point():  # tensor by tensor to its place: all of them in float32 may not fit twice
            drawn = torch.randn((tasks, *t.shape), generator=there, device=device)
            vectors[key] = drawn.mul_(0.1 * t.std(correction=0).to(device)).to(kind)
    names = tuple(f"task_{k}" for k in range(tasks))
    tv = replace(TaskVectors(names, state, {}).to(device), vectors=vectors)
    if components:
        tv = replace(tv, vectors={**vectors, **{key: in_components(vectors[key], there) for key in matrices(tv)}})
    scale = 100 / case.dim**0.5
    heads = tuple(torch.randn(c, case.dim, generator=generator).mul_(scale).to(device) for c in CLASSES[:tasks])
    if case.side == MiniConfig.image_size:
        heads = tuple(head[:10] for head in heads)
    inside = {name: options.pop(name) for name in ("autocast", "features") if name in options}
    model = EncoderWithHeads(encoder.to(device), heads, lambda x: x.float().div_(127.5).sub_(1), **inside)
    rows = tv.rows("component" if components else "tensor")
    objective = Objective(tv, rows, model, clamp=not components, **options)
    count = tasks * case.batches * case.batch_size
    images = torch.randint(0, 256, (count, 3, case.side, case.side), generator=generator, dtype=torch.uint8).to(device)
    raw = torch.full((tasks, len(objective.rows.names)), 0.3, device=device)
    return objective, raw, images


def in_components(t: Tensor, generator: torch.Generator) -> Components:
    """⌊r/K⌋ random orthogonal components of every task in the place of its matrix, of ``[K, m, n]``, r = min(m, n)."""
    tasks, m, n = t.shape
    each = max(1, min(m, n) // tasks)
    u, v = (
        torch.linalg.qr(torch.randn(size, tasks * each, generator=generator, device=t.device))[0] for size in (m, n)
    )
    owner = torch.arange(tasks, device=t.device).repeat_interleave(each)
    return Components(u * t.std() * min(m, n) ** 0.5, v.t().contiguous(), owner, tasks, t.shape[1:])


def loss(objective: Objective, state: dict[str, Tensor], images: Tensor, heads: tuple[Tensor, ...]) -> Tensor:
    """Sum of the entropies of images, task after task, under their heads."""
    parts = objective.model._unit_features(state, images).chunk(len(heads))
    return sum(entropy(logits(part, head)).sum() for part, head in zip(parts, heads, strict=True))


def forward_only(objective: Objective, images: Tensor) -> None:
    """Forward of one fixed model: what evaluation does."""
    count = len(images) // len(objective.model.heads)
    with torch.inference_mode():
        for part, head in zip(images.split(count), objective.model.heads, strict=True):
            loss(objective, objective.tv.pretrained, part, (head,))


def plain_step(objective: Objective, images: Tensor) -> None:
    """Forward and backward with respect to all parameters of one fixed model: no merging at all."""
    tv, heads = objective.tv, objective.model.heads
    leaves = [tv.pretrained[key].requires_grad_() for key in tv.vectors]
    count, size = len(images) // len(heads), len(heads) // objective.passes
    for first in range(0, len(heads), size):
        part = images[first * count : (first + size) * count]
        loss(objective, tv.pretrained, part, heads[first : first + size]).backward(inputs=leaves)
    for leaf in leaves:
        leaf.requires_grad_(False)
        leaf.grad = None


def merge_with_graph(objective: Objective, used: Tensor) -> dict[str, Tensor]:
    """θ(λ), to be differentiated through, as the published modules build it: scaled vectors, summed one by one."""
    tv, state = objective.tv, dict(objective.tv.pretrained)
    for key, t in tv.vectors.items():
        column = used[:, objective.rows.index[key]]
        state[key] = tv.pretrained[key] + sum(lam * own for lam, own in zip(column, t, strict=True))
    return state


def backward_a_task(objective: Objective, raw: Tensor, images: Tensor, batches: int) -> Tensor:
    """The gradient by one merge per step, back-propagated through once per task: FusionBench's way."""
    leaf = raw.detach().clone().requires_grad_()
    state, count = merge_with_graph(objective, leaf.clamp(0, 1)), len(images) // len(objective.model.heads)
    for part, head in zip(images.split(count), objective.model.heads, strict=True):
        (loss(objective, state, part, (head,)) * (batches / count)).backward(retain_graph=True)
    return leaf.grad


def merge_a_forward(objective: Objective, raw: Tensor, images: Tensor, batches: int) -> Tensor:
    """The gradient by a merge for every batch: the published way."""
    leaf = raw.detach().clone().requires_grad_()
    size = len(images) // len(objective.model.heads) // batches
    for number, part in enumerate(images.split(size)):
        state = merge_with_graph(objective, leaf.clamp(0, 1))
        (loss(objective, state, part, (objective.model.heads[number // batches],)) / size).backward()
    return leaf.grad


def measure(case: Case, repeats: int, objective: Objective, raw: Tensor, images: Tensor) -> list[dict[str, object]]:
    """Rows of the record: seconds and memory of a step, and what they are compared with."""
    device, tv, batches = raw.device, objective.tv, case.batches
    beside = not any(isinstance(t, Components) for t in tv.vectors.values())
    variants: dict[str, Callable[[], object]] = {
        "forward": lambda: forward_only(objective, images),
        "plain": lambda: plain_step(objective, images),
        "step": lambda: objective.losses_and_gradient(raw, images, batches),
    }
    others = {
        "tasks": lambda: backward_a_task(objective, raw, images, batches),
        "anew": lambda: merge_a_forward(objective, raw, images, batches),
    }
    variants |= others if beside else {}
    ours = objective.losses_and_gradient(raw, images, batches)[1]
    exact = objective.model.autocast is None and next(iter(tv.vectors.values())).dtype == torch.float32
    for name in others if beside else ():  # warms up, too
        error = float((variants[name]() - ours).norm() / ours.norm())
        if not error < (1e-3 if exact else 0.1):
            raise RuntimeError(f"{name}: its gradient is {error:.2g} of its norm away from the step's")
    variants["plain"]()
    seconds: dict[str, list[float]] = {key: [] for key in variants}
    memory: dict[str, int | None] = {}
    for _ in range(repeats):
        for key, variant in variants.items():
            _, taken, peak = measured(variant, device)
            seconds[key].append(taken)
            memory[key] = max(peak, memory.get(key) or 0) if peak is not None else None

    def row(quantity: str, value: str, baseline: str) -> dict[str, object]:
        ratios = [a / b for a, b in zip(seconds[value], seconds[baseline], strict=True)]
        numbers = {"value": statistics.median(seconds[value]), "baseline": statistics.median(seconds[baseline])}
        numbers = {name: round(number, 5) for name, number in numbers.items()}
        return {"quantity": quantity, **numbers, "ratio": round(statistics.median(ratios), 3)}

    rows = [
        row("step against plain forward and backward, seconds", "step", "plain"),
        row("forward alone against step, seconds", "forward", "step"),
    ]
    if beside:
        rows += [
            row("backward through the merge once per task against step, seconds", "tasks", "step"),
            row("merge anew for every forward against step, seconds", "anew", "step"),
        ]
    if memory["step"] is not None:
        encoder = 4 * sum(tv.pretrained[key].numel() for key in tv.vectors)
        held = encoder + sum(t.nbytes for t in tv.vectors.values())
        activations = memory["plain"] - encoder
        most = held + memory["step"], (len(tv.tasks) + 3) * encoder + activations
        value, baseline = (round(number / 1e9, 3) for number in most)
        told = "memory at the peak of a step against (K + 3) encoders and activations, GB"
        rows.append({"quantity": told, "value": value, "baseline": baseline, "ratio": round(most[0] / most[1], 3)})
    return rows


def main() -> None:
    """Run the cases and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", action="append", choices=CASES, help="default: mini and ViT-B-32")
    parser.add_argument("--tasks", action="append", type=int, choices=range(1, 21), metavar="K", help="default: 8")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batches", type=int, help="batches per task and step; default: the paper's 2, 1 for mini")
    parser.add_argument("--batch-size", type=int, help="default: the paper's 16")
    parser.add_argument("--passes", type=int, default=1, help="forward and backward passes per step")
    parser.add_argument("--autocast", choices=["bfloat16"])
    parser.add_argument("--vectors-dtype", choices=["bfloat16"])
    parser.add_argument("--components", action="store_true", help="a coefficient per component of TSV-M's basis")
    parser.add_argument("--compile", action="store_true", help="the encoder through torch.compile")
    parser.add_argument("--output", type=Path, help="record; default: the device's, other rows kept")
    given = parser.parse_args()
    started, clock, device = dt.datetime.now(dt.UTC), time.perf_counter(), resolve_device(given.device)
    cases, counts = given.case or ["mini", "ViT-B-32"], given.tasks or [8]
    speed = {"passes": given.passes, "autocast": given.autocast, "vectors_dtype": given.vectors_dtype}
    speed = {name: value for name, value in speed.items() if value not in (None, 1)}
    speed |= {"compile": True} if given.compile else {}
    speed |= {"components": True} if given.components else {}
    around = environment(device)
    slug = re.sub(r"[^a-z0-9]+", "-", around["device"].lower()).strip("-")
    output = given.output or RESULTS / f"adamerging_step{'' if device.type == 'cpu' else f'_{slug}'}.json"
    old = records.read(output) if given.output is None and output.is_file() else None
    if old is not None and old["environment"] != around:
        parser.error(f"{output.name} was made with other versions or threads: name another --output, or remove it")
    rows = []
    for name in cases:
        case = CASES[name]
        case = replace(case, batches=given.batches or case.batches, batch_size=given.batch_size or case.batch_size)
        for tasks in counts:
            if tasks % given.passes:
                parser.error(f"--passes {given.passes} does not divide {tasks} tasks")
            objective, raw, images = build(
                case, tasks, device, given.seed, vectors_dtype=DTYPES[given.vectors_dtype],
                autocast=DTYPES[given.autocast], passes=given.passes,
                features=torch.compile(raw_features) if given.compile else raw_features, components=given.components,
            )  # fmt: skip
            identity = {"case": name, "tasks": tasks, "images": len(images), "repeats": given.repeats, **speed}
            for row in measure(case, given.repeats, objective, raw, images):
                rows.append({**identity, **row})
                print(rows[-1], flush=True)
            del objective, raw, images
    seconds = time.perf_counter() - clock
    if old is not None:
        # One record per device, in several calls: rows of another size or precision stay, the same ones are replaced.
        identity = "case tasks images quantity passes autocast vectors_dtype components compile".split()
        new = {tuple(row.get(key) for key in identity) for row in rows}
        rows = [row for row in old["rows"] if tuple(row.get(key) for key in identity) not in new] + rows
        seconds += old["seconds"]
    parameters = {
        "cases": sorted({row["case"] for row in rows}), "tasks": sorted({row["tasks"] for row in rows}),
        "device": device.type,
    }  # fmt: skip
    record = records.new(
        "adamerging_step", "benchmark", parameters, None, rows, [given.seed], started, seconds, environment=around
    )
    records.write(record, output)
    print(output)


if __name__ == "__main__":
    main()
