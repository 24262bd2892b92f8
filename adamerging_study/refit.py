"""Kept fits computed anew: which ones the experiments read, one of them, all replayed.

`make refit` goes through `names`, one `fit` per job of Snakemake, then `install`; `make check-fits` is `check`.

    python -m adamerging_study.refit names mini --experiment performance
    python -m adamerging_study.refit fit mini performance-layer_wise_adamerging-0 out.safetensors
    python -m adamerging_study.refit check mini
"""

from __future__ import annotations

import functools
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from tqdm import tqdm

from adamerging_lib import load_suite
from adamerging_lib.command.line import call
from adamerging_lib.forward import resolve_device
from adamerging_lib.methods import run_method
from adamerging_lib.runtime.environment import environment
from adamerging_lib.runtime.values import nearest
from adamerging_lib.suite import Suite

from . import fits
from .book import notebooks
from .book.rerun import filled, template
from .fits import Wanted
from .rooms import face, part, rooms

PROGRAM = "python -m adamerging_study.refit"
app = typer.Typer(add_completion=False, help="Kept fits: list them, compute one anew, replay them.")


@functools.cache
def wanted(profile: str, experiment: str) -> dict[str, Wanted]:
    """The fits that an experiment reads on a profile where they are kept: name of the file → what it holds.

    Arguments:
        profile: its id.
        experiment: a room; one whose fits are all kept by others, or not at all, has none.
    """
    kept = getattr(part(experiment, "measure"), "kept", None)
    if kept is None:
        return {}
    shown = {"threads", "profile", *face(experiment).shown, *face(experiment).loads}
    values = {name: value for name, value in parameters(profile, experiment).items() if name not in shown}
    return {f"{experiment}-{one.name}": one for one in kept(**values)}


def parameters(profile: str, experiment: str) -> dict[str, Any]:
    """All parameters of an experiment's notebook on a profile."""
    known = notebooks.parameters(template(experiment))
    return {name: known[name].default for name in known} | filled(experiment, {"profile": profile}, known)


def names(profile: str, experiment: str | None = None) -> list[str]:
    """Names of all fits of a profile, or of one experiment.

    Raises:
        ValueError: for an unknown profile or experiment.
    """
    return [name for room in ([experiment] if experiment else rooms()) for name in wanted(profile, room)]


def _asked(profile: str, experiment: str | None) -> list[str]:
    """As `names`, and ValueError where there are none."""
    found = names(profile, experiment)
    if not found:
        raise ValueError(f"{experiment or profile} keeps no fits of its own")
    return found


def one(profile: str, name: str) -> tuple[Wanted, str]:
    """A fit by its name, and its experiment.

    Raises:
        ValueError: for a name that no experiment has, with the nearest one.
    """
    for experiment in rooms():
        if name in (known := wanted(profile, experiment)):
            return known[name], experiment
    raise ValueError(f"no experiment keeps a fit {name!r}: {nearest(name, names(profile))}see `{PROGRAM} names`")


@functools.lru_cache(maxsize=2)
def suite_of(profile: str, experiment: str) -> Suite:
    """The suite that an experiment loads."""
    values = parameters(profile, experiment)
    loads = {name: values[name] for name in face(experiment).loads if name != "profile"}
    return load_suite(profile, **loads)


def compute(profile: str, name: str, device: str = "cpu", *, progress: bool = False) -> fits.Kept:
    """One fit, made from nothing.

    Arguments:
        profile: its id.
        name: of the fit.
        device: ``cpu``, ``cuda`` or ``auto``.
        progress: show a bar on stderr.
    """
    this, experiment = one(profile, name)
    suite = this.part(suite_of(profile, experiment))
    fit = run_method(this.method, suite, cache=False, **{**this.options, "device": device}, progress=progress)
    about = {"seconds": fit.seconds, "environment": environment(resolve_device(device))}
    return fits.shorten(fit, suite, about)


def replay(path: Path) -> None:
    """Compute the first steps of a kept fit anew.

    Raises:
        ValueError: where they lead elsewhere, the experiment does not want this fit any more, or its data has changed.
    """
    profile, kept = path.parents[1].name, fits.read(path)
    this, experiment = one(profile, path.stem)
    suite = this.part(suite_of(profile, experiment))
    if fits.digests(suite) != kept.data:
        raise ValueError(f"{path.name} was made from other data: fit it anew, `make refit`")
    if fits.find(suite, this.method, this.options) is None:
        raise ValueError(f"{path.name} was made with other parameters than {experiment} has: fit it anew, `make refit`")
    difference, allowed = fits.replay(kept, suite), fits.tolerance(kept)
    if not difference <= allowed:
        raise ValueError(f"{path.name}: {difference:.1e} away after {fits.REPLAYED} steps, above {allowed:.0e}")


World = Annotated[str, typer.Argument(help="a profile, such as mini")]
Experiment = Annotated[str | None, typer.Option(help="only the fits of this experiment")]


@app.command("names")
def _names(profile: World, experiment: Experiment = None) -> None:
    """Print the names of all kept fits of a profile."""
    print(*_asked(profile, experiment), sep="\n")


@app.command("fit")
def _fit(
    profile: World,
    name: Annotated[str, typer.Argument(help="of the fit, as `names` prints it")],
    out: Annotated[Path, typer.Argument(help="where to write it")],
    device: Annotated[str, typer.Option(help="cpu, cuda or auto")] = "cpu",
    threads: Annotated[int, typer.Option(help="CPU threads")] = 1,
) -> None:
    """Compute one fit and write it."""
    torch.set_num_threads(threads)
    fits.write(compute(profile, name, device, progress=True), out)


@app.command("install")
def _install(
    profile: World,
    folder: Annotated[Path, typer.Argument(help="with the fits just made")],
    experiment: Experiment = None,
) -> None:
    """Put new fits in the place of the kept ones, and say how far each is from the one before."""
    asked = [folder / f"{name}.safetensors" for name in _asked(profile, experiment)]
    new = [path for path in asked if path.is_file()]
    if not new:
        raise ValueError(f"{folder} holds none of these fits; `make refit` makes them")
    for path in new:
        place = fits.folder(profile) / path.name
        print(f"{path.stem}: {_moved(place, path)}")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(path, place)


def _moved(old: Path, new: Path) -> str:
    if not old.is_file():
        return "new"
    before, after = fits.read(old), fits.read(new)
    if before.path.shape != after.path.shape:
        return "another length"
    return f"the last coefficients moved by {float((after.path[-1] - before.path[-1]).abs().max()):.1e} at most"


@app.command("check")
def _check(profile: World, experiment: Experiment = None, threads: int = 1) -> int:
    """Replay the first steps of all kept fits; 1 where one leads elsewhere or is not needed any more."""
    torch.set_num_threads(threads)
    if experiment:
        _asked(profile, experiment)  # refuses an unknown one
    paths = sorted(fits.folder(profile).glob(f"{experiment}-*.safetensors" if experiment else "*.safetensors"))
    if not paths:
        raise ValueError(f"no fits are kept in {fits.folder(profile)}")
    failed = []
    for path in tqdm(paths, unit="fit", disable=None):
        try:
            replay(path)
        except ValueError as error:
            failed.append(str(error))
    print(f"{len(paths) - len(failed)} of {len(paths)} kept fits lead along their path", *failed, sep="\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(call(app, PROGRAM))
