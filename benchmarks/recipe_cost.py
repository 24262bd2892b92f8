"""What this study's recipe reaches beside others that learn, from the same images, and in the same time.

Every method learns from the same unlabelled images of each task, drawn from one half of the test images of the drawn
world, and is measured on the other half. First by its own short recipe, *equal images*. Then with as many steps as take
the seconds that the recipe took, *equal seconds*: its own seconds less those that it spends before its first step, per
step, say how many; a method that needs longer than the recipe before its first step, or about as long as it in all, has
no such row. Seconds are those of one core, everything included. `--seeds` says how many draws of images are made.

    python benchmarks/recipe_cost.py
"""

from __future__ import annotations

import argparse
import datetime as dt
import statistics
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

import adamerging_lib as am
from adamerging_lib import records
from adamerging_lib.methods import run_method
from adamerging_lib.methods.registry import find, hyper_parameters
from adamerging_lib.runtime.environment import environment
from adamerging_lib.suite import Suite, TaskData, split_indices
from adamerging_study.gain.learn import adapted

OUTPUT = Path(__file__).parent / "results" / "recipe_cost.json"
RECIPE, WEIGHTS = "component_adamerging", "all weights"
PASSES = {"prodistill": "epochs"}
"""What a method calls its steps, where not ``steps``."""
METHODS = ("layer_wise_adamerging", "doge_am", "adarank", "samerging", "surgery", "prodistill", WEIGHTS)
CLOSE = 0.25
"""Share of the recipe's seconds by which another's may differ and count as equal."""
DISTILLED = {"start": "tsv_m", "grain": "weights", "objective": "imitation", "lr": 1e-4, "batch_size": 16}
"""Plain distillation of all weights, as in the grid of *What is the gain made of?*."""


def pool(suite: Suite, images: int, seed: int) -> Suite:
    """The suite with so many images per task of the half that may be learned from, as test and as training images."""
    chosen = {}
    for number, (task, data) in enumerate(suite.test.items()):
        half = split_indices(len(data))[0]
        drawn = torch.randperm(len(half), generator=torch.Generator().manual_seed(1000 * seed + number))[:images]
        chosen[task] = TaskData(data.images[half[drawn]], data.labels[half[drawn]], data.classes)
    return replace(suite, test=chosen, train=chosen)


def others(suite: Suite) -> Suite:
    """The suite with the half of the test images that no pool holds."""
    held = {task: split_indices(len(data))[1] for task, data in suite.test.items()}
    test = {
        task: TaskData(data.images[held[task]], data.labels[held[task]], data.classes)
        for task, data in suite.test.items()
    }
    return replace(suite, test=test)


def learned(method: str, suite: Suite, seed: int, steps: int | None) -> tuple[am.Merged, float, int]:
    """The model, seconds of one core, and how many steps it made."""
    begun = time.process_time()
    if method == WEIGHTS:
        steps = 100 if steps is None else steps
        about = {**DISTILLED, "images": 0, "setting": "transductive", "seed": seed, "steps": steps}
        merged = adapted(suite, about)[0]
    else:
        known = hyper_parameters(find(method))
        given: dict[str, object] = {"recipe": "mini", "seed": seed, "progress": False}
        if method == "prodistill":
            given["images"] = len(next(iter(suite.test.values())))
        given |= {} if steps is None else {PASSES.get(method, "steps"): steps}
        merged = run_method(method, suite, cache=False, **{k: v for k, v in given.items() if k in known})
        steps = merged.hyper[PASSES.get(method, "steps")]
    return merged, time.process_time() - begun, steps


def rows_of(found: Mapping[tuple[str, str], list[Mapping[str, float]]], images: int) -> list[dict[str, object]]:
    """Rows of the record, from (method, budget) → accuracy, seconds and steps of each draw."""

    def middle(cell: tuple[str, str], name: str) -> float:
        return statistics.mean(one[name] for one in found[cell])

    rows, recipe = [], (RECIPE, "equal images")
    for cell in found:
        values = [one["accuracy"] for one in found[cell]]
        rows.append({
            "case": f"{images} images per task", "method": cell[0],
            "quantity": f"accuracy on other images, %, {cell[1]}",
            "value": round(middle(cell, "accuracy"), 2), "baseline": round(middle(recipe, "accuracy"), 2),
            "ratio": round(middle(cell, "accuracy") / middle(recipe, "accuracy"), 3),
            "spread": round(max(values) - min(values), 2), "seconds": round(middle(cell, "seconds"), 2),
            "steps": round(middle(cell, "steps")), "budget": cell[1],
        })  # fmt: skip
    return rows


def main() -> None:
    """Measure and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=32, help="per task")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output", type=Path, default=OUTPUT)
    given = parser.parse_args()
    torch.set_num_threads(1)
    started, clock, suite = dt.datetime.now(dt.UTC), time.perf_counter(), am.load_suite("mini")
    rest = others(suite)
    found: dict[tuple[str, str], list[Mapping[str, float]]] = {}
    equal: dict[str, int] = {}
    for seed in given.seeds:
        small, allowed = pool(suite, given.images, seed), 0.0
        for method in (RECIPE, *METHODS):
            merged, seconds, steps = learned(method, small, seed, None)
            budgets = [("equal images", merged, seconds, steps)]
            if method == RECIPE:
                allowed = seconds
            elif method not in equal:  # how many steps is settled with the first draw
                equal[method] = 0
                before = learned(method, small, seed, 1)[1] if abs(seconds - allowed) > CLOSE * allowed else allowed
                if before < allowed:
                    equal[method] = round(1 + (allowed - before) / (max(seconds - before, 1e-3) / max(steps - 1, 1)))
            if equal.get(method):
                budgets.append(("equal seconds", *learned(method, small, seed, equal[method])))
            for budget, model, taken, made in budgets:
                accuracy = float(am.evaluate(rest, model)["accuracy"].mean())
                told = {"accuracy": accuracy, "seconds": taken, "steps": made}
                found.setdefault((method, budget), []).append(told)
                print(seed, method, budget, {name: round(value, 2) for name, value in told.items()}, flush=True)

    rows = rows_of(found, given.images)
    parameters = {"images": given.images, "methods": [RECIPE, *METHODS]}
    seconds = time.perf_counter() - clock
    around = environment(torch.device("cpu"))
    record = records.new(
        "recipe_cost", "benchmark", parameters, None, rows, given.seeds, started, seconds, environment=around
    )
    records.write(record, given.output)
    print(given.output)


if __name__ == "__main__":
    main()
