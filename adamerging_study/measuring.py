"""What every experiment does: begin a run, measure methods on a suite, and keep the rows as a record."""

from __future__ import annotations

import datetime as dt
import inspect
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from scipy.stats import spearmanr
from torch import Tensor

from adamerging_lib import records
from adamerging_lib.forward import resolve_device
from adamerging_lib.merged import Fit, Merged
from adamerging_lib.methods import methods, run_method
from adamerging_lib.methods.registry import find
from adamerging_lib.runtime import places
from adamerging_lib.runtime.environment import environment
from adamerging_lib.suite import Suite

from . import evaluations, fits, outcomes, rooms
from .claims import verdicts_of
from .judge import Verdict

# Where a run happens is told by the record's environment, and its seeds have a field of their own.
_NOT_RECORDED = ("device", "seed", "seeds")
COMPARE = "ADAMERGING_COMPARE"
"""The tests set it: a run must then agree with the committed record."""


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
    about: Mapping[str, Any] | None = None,
    **hyper: Any,
) -> list[dict[str, Any]]:
    """Accuracy, entropy, loss and calibration of one method on every task of a suite, and on average.

    Arguments:
        suite: what to merge, and the test images.
        method: method id.
        condition: of the images: ``clean`` or the name of a corruption; recorded.
        group: ``all``, ``seen`` or ``unseen``; recorded.
        seed: of adaptive methods and of those that draw at random; recorded.
        setting: ``transductive`` (the paper's) or ``inductive``; recorded.
        device: ``cpu``, ``cuda`` or ``auto``.
        learning: hyper-parameters for adaptive methods only (steps, lr, …), so that one loop serves all methods.
        progress: show the progress of adaptive methods on stderr.
        about: further columns of the rows, the experiment's factors.
        hyper: further hyper-parameters of this method.

    Returns:
        Rows of a record, one per task and a last one ``Average`` (unweighted): ``method, condition, group, seed, task,
        accuracy`` (percent), ``n, entropy, loss`` (nats), ``calibration`` (percent), ``setting, split``, and in
        ``right`` which images are classified correctly, see `outcomes`. The last one also tells what the model costs:
        ``seconds`` and ``memory`` (bytes at the peak) to make it, None where they are not known, and ``storage``, the
        numbers that it keeps per task beyond one encoder and the zero-shot heads.

    Raises:
        ValueError: for an unknown method, hyper-parameter or setting.
    """
    merged = fit(
        suite, method, seed=seed, setting=setting, device=device, learning=learning, progress=progress, **hyper
    )
    frame = evaluations.evaluate(suite, merged, setting=setting, device=device)
    rows = rows_of(frame, method=method, condition=condition, group=group, seed=seed, **(about or {}))
    rows[-1] |= {"seconds": merged.seconds, "memory": merged.memory, "storage": merged.task_storage}
    return rows


def fit(
    suite: Suite,
    method: str,
    *,
    seed: int = 0,
    setting: str = "transductive",
    device: str = "cpu",
    learning: Mapping[str, Any] | None = None,
    progress: bool = False,
    **hyper: Any,
) -> Merged:
    """The model that a method makes of a suite, given only those options that concern it.

    Arguments:
        suite, method, seed, setting, device, learning, progress, hyper: as in `measure`.

    Returns:
        The model; of a fit that is kept (see `fits`) with these parameters and this data, the kept one.
    """
    known = find(method)
    if known.adaptive:
        hyper = {**(learning or {}), "seed": seed, "setting": setting, "device": device, "progress": progress, **hyper}
        if kept := fits.find(suite, method, hyper):
            return fits.model(kept, suite)
    elif "seed" in inspect.signature(known.function).parameters:
        hyper = {"seed": seed, **hyper}
    return run_method(method, suite, **hyper)


def seeds_of(method: str, seeds: Sequence[int]) -> Sequence[int]:
    """The seeds that a method is run with: all of them where it learns or draws at random, else the first.

    Arguments:
        method: its id.
        seeds: of the experiment.
    """
    known = find(method)
    return seeds if known.adaptive or "seed" in inspect.signature(known.function).parameters else seeds[:1]


def rows_of(frame: pd.DataFrame, **identity: Any) -> list[dict[str, Any]]:
    """Rows of a record from a frame of `evaluate`, outcomes packed, with the ``Average`` row; see `records.rows_of`."""
    right = frame["right"] if "right" in frame else [None] * len(frame)
    rows = records.rows_of(frame.drop(columns="right", errors="ignore"), **identity)
    for row, outcome in zip(rows, right, strict=False):  # the last row is the average's
        if outcome is not None:
            row[outcomes.FIELD] = outcomes.pack(outcome)
    return rows


def rows_by_group(frame: pd.DataFrame, seen: Collection[str], **identity: Any) -> list[dict[str, Any]]:
    """As `rows_of`, in ``group`` ``seen`` for the tasks that were merged and ``unseen`` for the others."""
    merged = frame["task"].isin(seen)
    parts = ("seen", frame[merged]), ("unseen", frame[~merged])
    return [row for group, part in parts for row in rows_of(part.reset_index(drop=True), group=group, **identity)]


def sweep(suite: Suite, method: str, scalings: Iterable[float], **options: Any) -> list[dict[str, Any]]:
    """`measure` a method at several λ, given in the column ``scaling``.

    Arguments:
        suite, method: as for `measure`; the method takes ``scaling``.
        scalings: values of λ.
        options: as for `measure`.

    Raises:
        ValueError: for a value of λ that is given twice.
    """
    scalings = list(scalings)
    if len(set(scalings)) != len(scalings):
        raise ValueError(f"scalings {scalings} repeat: give each value of λ once")
    return [
        row
        for scaling in scalings
        for row in measure(suite, method, about={"scaling": scaling}, scaling=scaling, **options)
    ]


def at_step(suite: Suite, fit: Fit, step: int) -> Merged:
    """The model that a fit of plain task vectors had after so many steps.

    Arguments:
        suite: of the fit.
        fit: computed anew, with all its steps, or kept, with some of them.
        step: one of them; 0 for the start.

    Raises:
        ValueError: for a step that was not kept.
    """
    if fit.trajectory[step].isnan().any():
        last, every = len(fit.trajectory) - 1, fits.EVERY
        raise ValueError(
            f"step {step} of this fit was not kept: look at one up to {fits.FIRST}, at every {every}th, or at {last}, "
            f"the last; in robustness set every={every}"
        )
    state = suite.task_vectors().merge(fit.trajectory[step], fit.coefficients.granularity)
    return Merged(state, fit.method, {**fit.hyper, "steps": step}, fit.tasks)


def rank_correlation(x: Tensor, y: Tensor) -> float | None:
    """Spearman's rank correlation of two measurements of the same images; None where one of the two is constant.

    Arguments:
        x, y: ``[n]``, on the CPU.
    """
    if len(x.unique()) < 2 or len(y.unique()) < 2:
        return None
    return float(spearmanr(x.numpy(), y.numpy()).statistic)


@dataclass(frozen=True)
class Run:
    """One run of an experiment, begun when this is made; see `begin`.

    Arguments:
        experiment: its name, that of its room and its record.
        profile: ``mini``, ``tiny``, …
        options: what `measure` of the room is given.
        loaded: parameters that said which suite to load, without the profile.
        evaluated: kept evaluations, and those that the run used.
    """

    experiment: str
    profile: str
    options: Mapping[str, Any]
    loaded: Mapping[str, Any] = field(default_factory=dict)
    evaluated: evaluations.Evaluations = field(default_factory=evaluations.Evaluations)
    started: dt.datetime = field(default_factory=lambda: dt.datetime.now(dt.UTC))

    @property
    def seeds(self) -> list[int]:
        """All seeds of the run."""
        one = [self.options["seed"]] if "seed" in self.options else []
        return list(dict.fromkeys([*one, *self.options.get("seeds", ())]))

    def measure(self, suite: Suite) -> dict[str, Any]:
        """Everything that the experiment measures, as the record of this run."""
        with evaluations.using(self.evaluated):
            rows = rooms.part(self.experiment, "measure").measure(suite, **self.options)
        return self.record(suite, rows)

    def replay(self, suite: Suite, method: str, steps: int = fits.FIRST) -> str:
        """Compute the first steps of a method's first kept fit anew, and say whether they lead along its path.

        Arguments:
            suite: of this run.
            method: its id.
            steps: how many, at most those that are kept one by one.
        """
        wanted = rooms.part(self.experiment, "measure").kept(**self.options)
        one = next(one for one in wanted if one.method == method)
        part, label = one.part(suite), methods()["label"][method]
        if not (kept := fits.find(part, method, one.options)):
            return f"No fit of {label} is kept with these parameters and this data: it was computed whole."
        agree = fits.replay(kept, part, steps) <= fits.tolerance(kept)
        return (
            f"The first {min(steps, kept.steps[-1])} steps of {label} (seed {kept.hyper['seed']}), computed on this "
            f"machine, {'agree with' if agree else 'DIFFER from'} the kept fit, to {fits.tolerance(kept):.0e} in every "
            "coefficient."
        )

    def record(self, suite: Suite, rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        """The record of this run.

        Arguments:
            suite: whose assets are recorded.
            rows: the measurements.
        """
        face = rooms.face(self.experiment)
        parameters = {k: v for k, v in {**self.loaded, **self.options}.items() if k not in _NOT_RECORDED}
        seconds = (dt.datetime.now(dt.UTC) - self.started).total_seconds()
        return records.new(
            self.experiment, self.profile, parameters, suite, rows, self.seeds, self.started, seconds,
            environment=environment(resolve_device(self.options.get("device", "cpu"))),
            methods=methods().to_dict("index"), measured=(*records.MEASURED, *face.measured),
        )  # fmt: skip

    def finish(self, record: Mapping[str, Any]) -> list[str]:
        """Write the record, and the evaluations behind it, below `places.results`.

        Arguments:
            record: of this run.

        Returns:
            Lines to print: where it lies, and the verdicts on the experiment's claims.

        Raises:
            ValueError: under test, where the committed record is of the same run and differs by more than the room's
                tolerance.
        """
        name = f"{self.profile}/{self.experiment}.json"
        records.write(record, places.results() / name)
        if self.evaluated.used:
            evaluations.write(self.evaluated.used, places.results() / evaluations.place(self.profile, self.experiment))
        committed = places.committed() / name
        if os.environ.get(COMPARE) and committed.is_file():
            _compare(records.read(committed), record, rooms.face(self.experiment).tolerance)
        return [f"Record: {name}, in {_shown(places.results())}", *map(said, verdicts_of(record))]


def begin(experiment: str, values: Mapping[str, Any]) -> Run:
    """Begin a run with the parameters of a notebook: the annotated names of its first code cell.

    Arguments:
        experiment: the room.
        values: the notebook's ``globals()``. Papermill overrides values in a cell of its own; what is a parameter is
            told by the annotations of the notebook's cell.

    Raises:
        ValueError: for an unknown experiment, one that does not run on the profile, or values without parameters.
    """
    face = rooms.face(experiment)
    names = list(values.get("__annotations__", ()))
    if "profile" not in names:
        raise ValueError(f"no parameter 'profile: str = …' is annotated before {experiment} begins: add it, tagged so")
    if face.only and values["profile"] not in face.only:
        raise ValueError(
            f"{experiment} runs on {' or '.join(face.only)}, not on {values['profile']!r}: take 'performance' or "
            "'leaderboard', which run on all profiles"
        )
    torch.set_num_threads(values.get("threads", 1))
    given = {name: values[name] for name in names if name not in ("threads", *face.shown)}
    options = {name: value for name, value in given.items() if name not in face.loads}
    loaded = {name: given[name] for name in face.loads if name in given and name != "profile"}
    return Run(experiment, given["profile"], options, loaded, evaluations.begin(given["profile"], experiment))


def said(verdict: Verdict) -> str:
    """A verdict as one line without measured numbers, so that it compares equal on every machine until it flips."""
    return f"{verdict.claim.claim}: {verdict}"


def _shown(folder: Path) -> str:
    """A folder for people: nothing of this machine where it was chosen by the environment, else relative."""
    if os.environ.get("ADAMERGING_RESULTS"):
        return "$ADAMERGING_RESULTS"
    return os.path.relpath(folder)


def _compare(committed: Mapping[str, Any], record: Mapping[str, Any], tolerance: Mapping[str, float]) -> None:
    if committed["parameters"] == record["parameters"] and committed["seeds"] == record["seeds"]:
        if differences := records.compare(committed, record, tolerance):
            listed = "\n".join(differences[:20])
            raise ValueError(f"{len(differences)} differences to the committed record:\n{listed}")
