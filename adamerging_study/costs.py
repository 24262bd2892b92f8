"""What the study costs at the scale of CLIP: measured rows of the benchmark of a step, and what follows from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adamerging_lib import records

FOLDER = Path("benchmarks/results")
NOT_RUN = "not run"
ONE_CORE = "one CPU core"  # whose seconds the benchmark counts on a CPU
ARCHS = ("ViT-B-32", "ViT-B-16", "ViT-L-14")
TASKS = (8, 20)

COMPONENTS = ", a coefficient per component"

# The published recipe: 500 steps, each of two batches of 16 images per task.
STEPS, IMAGES_A_TASK = 500, 32
# Test images of the paper's eight tasks, and of the four whose images it corrupts: Cars, EuroSAT, RESISC45, GTSRB.
EIGHT, FOUR = 87_470, 8_041 + 2_700 + 6_300 + 12_630


@dataclass(frozen=True)
class Part:
    """One table of the AdaMerging paper: fits of λ, and evaluations of one merged or reference model each."""

    name: str
    arch: str
    tasks: int
    fits: int
    evaluations: int
    evaluated: int

    @property
    def adapted_images(self) -> int:
        """Images that go forward and backward in all its fits."""
        return self.fits * STEPS * self.tasks * IMAGES_A_TASK

    @property
    def evaluated_images(self) -> int:
        """Images that go forward in all its evaluations."""
        return self.evaluations * self.evaluated


# Fits: task-wise and layer-wise, plain and "++", where the paper prints them. Evaluations: every row of the table. Six
# tasks are merged and all eight evaluated for generalisation, twice; four tasks in clean and seven corrupted conditions
# for robustness, each adapted on its own images.
STUDY = (
    Part("eight tasks", "ViT-B-32", 8, 4, 12, EIGHT),
    Part("eight tasks", "ViT-B-16", 8, 4, 8, EIGHT),
    Part("eight tasks", "ViT-L-14", 8, 2, 10, EIGHT),
    Part("generalisation", "ViT-B-32", 6, 2 * 2, 2 * 4, EIGHT),
    Part("generalisation", "ViT-B-16", 6, 2 * 1, 2 * 2, EIGHT),
    Part("robustness", "ViT-B-32", 4, 8 * 1, 8 * 2, FOUR),
    Part("robustness", "ViT-B-16", 4, 8 * 1, 8 * 2, FOUR),
)

QUANTITIES = {
    "plain": "step against plain forward and backward, seconds",
    "forward": "forward alone against step, seconds",
    "tasks": "backward through the merge once per task against step, seconds",
    "anew": "merge anew for every forward against step, seconds",
    "memory": "memory at the peak of a step against (K + 3) encoders and activations, GB",
}


@dataclass(frozen=True)
class Measured:
    """One configuration on one device; ``rows``: short name of a quantity → row of the record."""

    arch: str
    tasks: int
    device: str
    images: int
    width: str
    rows: Mapping[str, Mapping[str, Any]]

    def shown(self, quantity: str, field: str) -> str:
        """A number of a row, or that it was not measured."""
        return f"{self.rows[quantity][field]:.3g}" if quantity in self.rows else NOT_RUN


def measured(folder: Path = FOLDER) -> list[Measured]:
    """Every configuration of the towers of CLIP that the committed records hold."""
    names, found = {told: name for name, told in QUANTITIES.items()}, {}
    for path in sorted(folder.glob("adamerging_step*.json")):
        record = records.read(path)
        device = record["environment"]["device"]
        device = ONE_CORE if device == "cpu" else device
        for row in record["rows"]:
            if row["case"] not in ARCHS or row["quantity"] not in names:
                continue
            narrow = [name for name in ("autocast", "vectors_dtype", "compile") if row.get(name)]
            width = "float32" if not narrow else " and ".join(narrow).replace("vectors_dtype", "T") + " bfloat16"
            width += COMPONENTS if row.get("components") else ""
            key = (row["case"], row.get("tasks", 8), device, row["images"], width)
            found.setdefault(key, {})[names[row["quantity"]]] = row
    return [Measured(*key, rows) for key, rows in found.items()]


def step_rows(found: Sequence[Measured]) -> list[list[str]]:
    """The table of steps: what was measured, and for every arch and number of tasks what was not."""
    rows = []
    for arch in ARCHS:
        for tasks in TASKS:
            here = [m for m in found if (m.arch, m.tasks) == (arch, tasks)]
            for m in here:
                cells = [m.shown("plain", "value"), m.shown("memory", "value")]
                cells += [m.shown(name, "ratio") for name in ("plain", "tasks", "anew", "memory")]
                rows.append([arch, str(tasks), m.device, m.width, str(m.images), *cells])
            if not any(m.device != ONE_CORE for m in here):
                rows.append([arch, str(tasks), "a GPU", "", "", *[NOT_RUN] * 6])
    return rows


def study_rows(found: Sequence[Measured]) -> list[list[str]]:
    """The extrapolation: a header, and hours of each part of the study on each device and in each width measured."""
    found = [m for m in found if not m.width.endswith(COMPONENTS)]  # the paper has no such fits
    devices = list(dict.fromkeys((m.device, m.width) for m in found))
    if all(device == ONE_CORE for device, _ in devices):
        devices.append(("a GPU", "float32"))
    rows, total = [], dict.fromkeys(devices, 0.0)
    for part in STUDY:
        cells = []
        for device in devices:
            hours = _hours(part, [m for m in found if (m.arch, (m.device, m.width)) == (part.arch, device)])
            total[device] = None if hours is None or total[device] is None else total[device] + hours
            cells.append(_told(hours))
        counts = [part.fits, part.adapted_images, part.evaluated_images]
        rows.append([part.name, part.arch, *(f"{count:,}" for count in counts), *cells])
    sums = [sum(getattr(part, name) for part in STUDY) for name in ("fits", "adapted_images", "evaluated_images")]
    rows.append(["**all**", "", *(f"{count:,}" for count in sums), *map(_told, total.values())])
    return [
        ["", "arch", "fits", "images adapted on", "images evaluated", *(f"hours on {d}, {w}" for d, w in devices)],
        *rows,
    ]


def _hours(part: Part, found: Iterable[Measured]) -> float | None:
    """Hours of a part, from seconds per image of a step and of a forward; None where they were not measured."""
    # Where several numbers of images per step were measured, the cheapest.
    seconds = [
        part.adapted_images * m.rows["plain"]["value"] / m.images
        + part.evaluated_images * m.rows["forward"]["value"] / m.images
        for m in found
        if m.tasks == 8 and {"plain", "forward"} <= m.rows.keys()
    ]
    return min(seconds) / 3600 if seconds else None


def _told(hours: float | None) -> str:
    return NOT_RUN if hours is None else f"{hours:.3g}"
