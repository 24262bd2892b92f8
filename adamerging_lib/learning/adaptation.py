"""The seam of all methods that learn: their common options, taken, checked and documented once, and their steps.

A method is written as ``def method(suite, run, *, own options)`` under `learns`. Callers see ``method(suite, *, own
options, common options)``; what they give for the common ones reaches the method as ``run``, an `Adaptation`.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from ..forward import resolve_device
from ..runtime.distributed import leads
from .recipes import check_setting, resolve
from .streams import Stream, seeded, task_streams

if TYPE_CHECKING:
    from ..suite import Suite

LOOKS = 50

# What the docstring of a method says of a common option, unless the method says something more exact itself.
TEXTS = {
    "recipe": "{recipes}; {options} override it one by one.",
    "steps": "steps of Adam ({value}).",
    "lr": "learning rate of Adam ({value}).",
    "batch_size": "images per batch and task ({value}).",
    "batches": "batches per task and step ({value}).",
    "seed": "of the image streams, the only chance in the method.",
    "setting": "{setting}",
    "device": "``cpu``, ``cuda`` or ``auto``.",
    "progress": "show a bar on stderr.",
}
SETTING = {
    "test": "``transductive`` (adapt on all test images, as published) or ``inductive`` (on one half of them).",
    "train": "for the calling convention; no test image is read.",
    "labels": "for the calling convention; no test image is read.",
}


@dataclass(frozen=True)
class Adaptation:
    """One run of a method that learns: its common options, checked, and what follows from them.

    Arguments:
        options: values of the recipe, overridden by those given: ``steps``, ``lr``, ``batch_size``, …
        images: where it learns from: ``test`` images, ``train`` images, or training images with their ``labels``.
        seed: of everything drawn.
        setting: ``transductive`` or ``inductive``.
        device: where it runs.
        progress: whether bars are shown.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    images: str = "test"
    seed: int = 0
    setting: str = "transductive"
    device: torch.device = torch.device("cpu")
    progress: bool = False

    def streams(self, suite: Suite, *, images: int | None = None) -> list[Stream]:
        """One stream per task of a suite, with batches of the recipe's size; see `task_streams`."""
        return task_streams(
            suite, suite.tasks, size=self.options["batch_size"], seed=self.seed, setting=self.setting,
            device=self.device, images=images, labelled=None if self.images == "test" else suite.training(),
        )  # fmt: skip

    def generator(self, what: str, *parts: object) -> torch.Generator:
        """A generator of its own for everything that is drawn, see `seeded`."""
        return seeded(what, self.seed, *parts)

    def bar(self, items: Iterable[Any], label: str, unit: str) -> tqdm:
        """The items, with a bar on stderr that counts them."""
        return tqdm(items, desc=label, unit=unit, file=sys.stderr, disable=not self.progress)

    def steps(
        self,
        label: str,
        tasks: Sequence[str],
        *,
        total: int | None = None,
        loss: str = "loss",
        unit: str = "step",
        done: Sequence[Tensor] = (),
    ) -> Steps:
        """The steps of a descent, see `Steps`.

        Arguments:
            label: what the bar says.
            tasks: names, in the order of the losses.
            total: how many steps; default the recipe's ``steps``.
            loss: what the losses are, as an error calls them.
            unit: what a step is, as the bar calls it.
            done: losses of the steps made by an earlier run.
        """
        total = self.options["steps"] if total is None else total
        show = self.progress and leads() and len(done) < total
        shown = tqdm(total=total, initial=len(done), desc=label, unit=unit, file=sys.stderr, disable=not show)
        return Steps(tuple(tasks), total, loss, shown, list(done))


@dataclass(frozen=True)
class Steps:
    """Steps to be made, a bar on stderr, and the losses of the steps made; iterate over it, and `add` each step's.

    Arguments:
        tasks: names, in the order of the losses.
        total: steps in all.
        loss: what the losses are, as an error calls them.
        bar: shows the steps made.
        losses: ``[K]`` of every step made.
    """

    tasks: tuple[str, ...]
    total: int
    loss: str
    bar: tqdm
    losses: list[Tensor]

    def __iter__(self) -> Iterator[int]:
        """Numbers of the steps still to be made."""
        return iter(range(len(self.losses), self.total))

    def add(self, losses: Tensor, **shown: Tensor) -> None:
        """Note the losses of a step.

        Arguments:
            losses: ``[K]``.
            shown: name → what the bar shows beside their sum: one number, or the range of many.

        Raises:
            ValueError: now and then, and at the last step, for losses that are NaN, naming the tasks.
        """
        self.losses.append(losses.detach())
        step, last = len(self.losses) - 1, len(self.losses) == self.total
        # Reading a number stalls a GPU, which has to finish all that is queued first. Losses stay there, therefore, and
        # the bar and the check for NaN look only now and then.
        if last or step % max(1, self.total // LOOKS) == 0:
            values = self.losses[-1].tolist()
            if bad := [task for task, value in zip(self.tasks, values, strict=True) if value != value]:
                self.bar.close()
                named = f"the {self.loss} of {', '.join(bad)} is NaN at step {step}"
                raise ValueError(f"{named}: lower lr, or check images and heads")
            texts = {name: _shown(t) for name, t in shown.items()}
            self.bar.set_postfix(loss=f"{sum(values):.4g}", refresh=False, **texts)
        self.bar.update()
        if last:
            self.bar.close()

    def history(self) -> pd.DataFrame:
        """One row per step: step, loss (the sum over tasks), and one column per task."""
        table = torch.stack(self.losses).double().cpu() if self.losses else torch.empty(0, len(self.tasks)).double()
        columns = {"step": range(len(table)), "loss": table.sum(1).numpy()}
        return pd.DataFrame(columns | {task: table[:, k].numpy() for k, task in enumerate(self.tasks)})


def learns(
    recipes: Mapping[str, Mapping[str, Any]] | None = None, *, images: str
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator of a method that learns: give it the common options, in its signature and in its docstring.

    These are ``recipe`` and one option per value of a recipe, None for the recipe's (of methods that have recipes),
    ``seed``, ``setting``, ``device`` and ``progress``. A call checks them, and raises ValueError for one of no use.

    Arguments:
        recipes: name → option → value, the default first.
        images: where the method learns from, see `Adaptation`.
    """
    first = next(iter(recipes.values())) if recipes else {}
    recipe, rest = _common(recipes, first)
    common = [*recipe, *rest]

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def method(suite: Suite, **given: Any) -> Any:
            chosen = {option.name: given.pop(option.name, option.default) for option in common}
            options = resolve(recipes, chosen["recipe"], **{name: chosen[name] for name in first}) if recipes else {}
            check_setting(chosen["setting"])
            device = resolve_device(chosen["device"])
            run = Adaptation(options, images, chosen["seed"], chosen["setting"], device, chosen["progress"])
            return function(suite, run, **given)  # an option that neither knows is a TypeError here

        signature = inspect.signature(function)
        suite, _, *own = signature.parameters.values()
        method.__signature__ = signature.replace(parameters=[suite, *recipe, *own, *rest])
        method.__doc__ = _documented(inspect.getdoc(function) or "", common, {
            "recipes": " or ".join(f"``{name}``" for name in recipes or {}),
            "options": ", ".join(first),
            "setting": SETTING[images],
        }, first)  # fmt: skip
        return method

    return decorate


def _common(
    recipes: Mapping[str, Any] | None, first: Mapping[str, Any]
) -> tuple[list[inspect.Parameter], list[inspect.Parameter]]:
    """The common options as parameters, of the recipe and others; annotations are texts, as all in the package are."""

    def option(name: str, annotation: str, default: Any) -> inspect.Parameter:
        return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)

    recipe = [option("recipe", "str", next(iter(recipes)))] if recipes else []
    recipe += [option(name, f"{type(value).__name__} | None", None) for name, value in first.items()]
    rest = [option("seed", "int", 0), option("setting", "str", "transductive")]
    rest += [option("device", "str | torch.device", "cpu"), option("progress", "bool", True)]
    return recipe, rest


def _documented(
    text: str, common: Sequence[inspect.Parameter], words: Mapping[str, str], first: Mapping[str, Any]
) -> str:
    """A docstring with the common options that it does not name itself at the end of its arguments."""
    arguments, returns, rest = text.partition("\n\nReturns:")
    for name in (option.name for option in common):
        if re.search(rf"^    {name}:", arguments, re.MULTILINE) is None:
            arguments += f"\n    {name}: " + TEXTS[name].format(value=first.get(name), **words)
    return arguments + returns + rest


def _shown(t: Tensor) -> str:
    """A number, or the range of many."""
    return f"{t:.3g}" if t.dim() == 0 else f"{t.min():.2f}..{t.max():.2f}"
