"""What to do with BatchNorm's statistics when λ is learned and when it is done: each choice of `am.adapt`, measured.

A small ResNet with linear heads is trained on four tasks of the drawn world together, then fine-tuned on each of the
other four alone; these four experts are merged. All come from the world's test images, because drawing more takes
longer than all of this: 600 per task to train on, the other 400 to adapt on without labels and to measure on.

    python benchmarks/batchnorm.py
"""

from __future__ import annotations

import argparse
import datetime as dt
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import adamerging_lib as am
from adamerging_lib import records
from adamerging_lib.adapting.statistics import MODES
from adamerging_lib.runtime.environment import environment

RESULTS = Path(__file__).parent / "results"
BEFORE = ("aerial", "housenumbers", "signs", "textures")
TASKS = ("scenes", "vehicles", "landcover", "digits")
RECALIBRATE = ("none", "shared", "task")
TRAINED = 600


class Block(nn.Module):
    """Two convolutions with BatchNorm around a shortcut."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.short = nn.Conv2d(inside, outside, 1, stride, bias=False) if inside != outside else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """``[n, inside, h, w]`` → ``[n, outside, h / stride, w / stride]``."""
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return (y + self.short(x)).relu()


class ResNet(nn.Module):
    """32 × 32 images → logits; ``head`` is linear, with bias."""

    def __init__(self, classes: int, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        sizes = (width, width, 2 * width, 4 * width)
        self.blocks = nn.Sequential(*(Block(sizes[i], sizes[i + 1], 1 if i == 0 else 2) for i in range(3)))
        self.head = nn.Linear(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """``[n, 3, 32, 32]`` → ``[n, classes]``."""
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


def train(model: nn.Module, data: list[tuple[Tensor, Tensor, nn.Module]], epochs: int, lr: float, seed: int) -> None:
    """AdamW on one or several tasks, each with a head of its own, in turn."""
    parameters = [*model.parameters(), *(p for _, _, head in data for p in head.parameters())]
    steps = epochs * (len(data[0][0]) // 64) * len(data)
    optimiser = torch.optim.AdamW(dict.fromkeys(parameters), lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, total_steps=steps)
    generator = torch.Generator().manual_seed(seed)
    model.train()
    for step in range(steps):
        images, labels, head = data[step % len(data)]
        index = torch.randint(0, len(images), (64,), generator=generator)
        model.head = head
        loss = F.cross_entropy(model(images[index]), labels[index])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    model.eval()


def images(suite: am.Suite, task: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images and labels to train on, and the others."""
    data = suite.test[task]
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
    parts = order[:TRAINED], order[TRAINED:]
    return tuple(t for part in parts for t in (suite.normalise(data.images[part]), data.labels[part]))


def trained(suite: am.Suite, epochs: int) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]]]:
    """θ0, trained on four tasks together, and the experts of the four others."""
    data = {task: images(suite, task)[:2] for task in suite.tasks}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = ResNet(1)
        heads = {task: nn.Linear(32, len(suite.test[task].classes)) for task in suite.tasks}
    train(model, [(*data[task], heads[task]) for task in BEFORE], epochs, 3e-3, 0)
    base = {key: t.clone() for key, t in model.state_dict().items() if not key.startswith("head")}
    experts = {}
    for task in TASKS:
        model.head = heads[task]
        model.load_state_dict(base, strict=False)
        train(model, [(*data[task], heads[task])], epochs, 1e-3, 1)
        experts[task] = {key: t.clone() for key, t in model.state_dict().items()}
    return base, experts


def accuracy(model: nn.Module, inputs: Tensor, labels: Tensor) -> float:
    """Percent of images that a model classifies correctly."""
    with torch.inference_mode():
        return 100 * float((model(inputs).argmax(-1) == labels).double().mean())


def measure(
    base: Mapping[str, Tensor], experts: Mapping[str, Mapping[str, Tensor]], suite: am.Suite, seeds: int, steps: int
):
    """Rows of the record."""
    test = {task: images(suite, task)[2:] for task in TASKS}
    own = []
    for task in TASKS:
        model = ResNet(len(suite.test[task].classes)).eval()
        model.load_state_dict(experts[task])
        own.append(accuracy(model, *test[task]))
    individual = sum(own) / len(own)
    print("experts", dict(zip(TASKS, own, strict=True)), flush=True)
    quantity = "average accuracy of four merged ResNets against the experts', percent"

    def loaders() -> dict[str, DataLoader]:
        return {task: DataLoader(TensorDataset(*data), 32, shuffle=True) for task, data in test.items()}

    def adapted(**options: object) -> am.Adapted:
        return am.adapt(ResNet(1), base, experts, data=loaders(), private="head.*", progress=False, **options)

    def rows_of(name: str, fits: list[am.Adapted]) -> list[dict[str, object]]:
        found = []
        for recalibrate in RECALIBRATE:
            # No step more: only statistics differ.
            ends = [adapted(init=fit.coefficients, steps=0, recalibrate=recalibrate) for fit in fits]
            values = [float(am.evaluate(end, loaders())["accuracy"].mean()) for end in ends]
            mean = sum(values) / len(values)
            numbers = {"value": round(mean, 2), "baseline": round(individual, 2), "ratio": round(mean / individual, 4)}
            case = f"{name}, recalibrate={recalibrate}"
            found.append({"case": case, "quantity": quantity, **numbers, "spread": round(max(values) - min(values), 2)})
            print(found[-1], flush=True)
        return found

    rows = rows_of("λ = 0.3", [adapted(steps=0)])
    for mode in MODES:
        fits = [adapted(steps=steps, lr=1e-2, seed=seed, statistics=mode) for seed in range(seeds)]
        rows += rows_of(f"{steps} steps, statistics={mode}", fits)
    return rows


def main() -> None:
    """Train, measure, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--output", type=Path, default=RESULTS / "batchnorm.json")
    given = parser.parse_args()
    started, clock = dt.datetime.now(dt.UTC), time.perf_counter()
    suite = am.load_suite("mini")
    base, experts = trained(suite, given.epochs)
    print(f"trained in {time.perf_counter() - clock:.0f} s", flush=True)
    rows = measure(base, experts, suite, given.seeds, given.steps)
    parameters = {"epochs": given.epochs, "steps": given.steps, "lr": 1e-2, "batch_size": 32}
    record = records.new(
        "batchnorm", "mini", parameters, suite, rows, list(range(given.seeds)), started, time.perf_counter() - clock,
        environment=environment(torch.device("cpu")),
    )  # fmt: skip
    records.write(record, given.output)
    print(given.output)


if __name__ == "__main__":
    main()
