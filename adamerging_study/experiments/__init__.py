"""The loop of every experiment: run methods, measure them, and keep the measurements as a record."""

from __future__ import annotations

import datetime as dt
import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from adamerging_lib import records
from adamerging_lib.evaluation import evaluate
from adamerging_lib.forward import resolve_device
from adamerging_lib.methods import Fit, Merged, run_method
from adamerging_lib.methods.registry import find
from adamerging_lib.runtime import places
from adamerging_lib.runtime.environment import environment
from adamerging_lib.suite import Suite


def measure(
    suite: Suite,
    method: str,
    *,
    condition: str = "clean",
    group: str = "all",
    seed: int = 0,
    setting: str = "transductive",
    device: str = "cpu",
    learning: Mapping[str, Any] | None = None,
    progress: bool = False,
    **hyper: Any,
) -> list[dict[str, Any]]:
    """Accuracy, entropy, loss and calibration of one method on every task of a suite, and on average.

    Arguments:
        suite: what to merge, and the test images.
        method: method id.
        condition: ``clean``, the name of a corruption, or ``lambda=...``; recorded.
        group: ``all``, ``seen`` or ``unseen``; recorded.
        seed: of adaptive methods and of those that draw at random; recorded.
        setting: ``transductive`` (the paper's) or ``inductive``; recorded.
        device: ``cpu``, ``cuda`` or ``auto``.
        learning: hyper-parameters for adaptive methods only (steps, lr, …), so that one loop serves all methods.
        progress: show the progress of adaptive methods on stderr.
        hyper: further hyper-parameters of this method.

    Returns:
        Rows of a record, one a task and a last one ``Average`` (unweighted): ``method, condition, group, seed, task,
        accuracy`` (percent), ``n, entropy, loss`` (nats), ``calibration`` (percent), ``setting, split``. The last one
        also tells what the model costs: ``seconds`` and ``memory`` (bytes at the peak) to make it, None where they are
        not known, and ``storage``, the numbers that it keeps per task beyond one encoder and the zero-shot heads.

    Raises:
        ValueError: for an unknown method, hyper-parameter or setting.
    """
    known = find(method)
    if known.adaptive:
        hyper = {**(learning or {}), "seed": seed, "setting": setting, "device": device, "progress": progress, **hyper}
    elif "seed" in inspect.signature(known.function).parameters:
        hyper = {"seed": seed, **hyper}
    merged = run_method(method, suite, **hyper)
    frame = evaluate(suite, merged, setting=setting, device=device)
    rows = records.rows_of(frame, method=method, condition=condition, group=group, seed=seed)
    rows[-1] |= {"seconds": merged.seconds, "memory": merged.memory, "storage": merged.task_storage}
    return rows


def sweep(suite: Suite, method: str, scalings: Iterable[float], **options: Any) -> list[dict[str, Any]]:
    """`measure` a method at several λ: rows with the condition ``lambda=0.30`` and the number in ``scaling``.

    Arguments:
        suite, method: as for `measure`; the method takes ``scaling``.
        scalings: values of λ, told apart to two digits.
        options: as for `measure`.

    Raises:
        ValueError: for values of λ that agree to two digits.
    """
    conditions = {scaling: f"lambda={scaling:.2f}" for scaling in scalings}
    if len(set(conditions.values())) != len(conditions):
        raise ValueError(f"scalings {list(conditions)} repeat to two digits: choose values at least 0.01 apart")
    return [
        {**row, "scaling": scaling}
        for scaling, condition in conditions.items()
        for row in measure(suite, method, condition=condition, scaling=scaling, **options)
    ]


def at_step(suite: Suite, fit: Fit, step: int) -> Merged:
    """The model that a fit of plain task vectors had after so many steps."""
    state = suite.task_vectors().merge(fit.trajectory[step], fit.coefficients.granularity)
    return Merged(state, fit.method, {**fit.hyper, "steps": step}, fit.tasks)


@dataclass(frozen=True)
class Run:
    """One run of an experiment, begun when this is made.

    Arguments:
        experiment: its name, the stem of its record.
        profile: ``mini``, ``tiny``, …
        parameters: plain values that the result depends on.
        seeds: all seeds used.
        device: where it runs.
    """

    experiment: str
    profile: str
    parameters: Mapping[str, Any]
    seeds: Sequence[int] = (0,)
    device: str = "cpu"
    started: dt.datetime = field(default_factory=lambda: dt.datetime.now(dt.UTC))

    def finish(
        self, suite: Suite, rows: Iterable[Mapping[str, Any]], tolerance: float | Mapping[str, float] = 1.0
    ) -> list[str]:
        """Write the record, after comparing it with the committed one.

        Arguments:
            suite: whose assets are recorded.
            rows: the measurements.
            tolerance: allowed difference, see `records.compare`.

        Returns:
            Lines to print: a verdict without measured numbers, and one line a difference, if there is any.
        """
        seconds = (dt.datetime.now(dt.UTC) - self.started).total_seconds()
        record = records.new(
            self.experiment, self.profile, self.parameters, suite, rows, self.seeds, self.started, seconds,
            environment=environment(resolve_device(self.device)),
        )  # fmt: skip
        name = f"{self.profile}/{self.experiment}.json"
        committed = places.committed() / name
        lines = ["First record of this run: nothing to compare with."]
        if committed.is_file():
            lines = _against(records.read(committed), record, tolerance)
        records.write(record, places.results() / name)
        return lines


def _against(committed: dict[str, Any], record: dict[str, Any], tolerance: float | Mapping[str, float]) -> list[str]:
    if committed["parameters"] != record["parameters"] or committed["seeds"] != record["seeds"]:
        return ["Other parameters than the committed record: not compared."]
    differences = records.compare(committed, record, tolerance)
    word = "does not hold" if differences else "holds"
    return [f"As in the committed record, within the tolerance: {word}", *differences]
