"""The list of kept fits is the one that experiments read, and fits are computed, put in place and replayed by it."""

from __future__ import annotations

import dataclasses
import inspect
from collections import Counter
from pathlib import Path

import pytest
import yaml

from adamerging_lib.methods import run_method
from adamerging_lib.methods.adamerging import METHOD_IDS
from adamerging_lib.runtime import places
from adamerging_study import fits, measuring, refit, rooms
from adamerging_study.fits import Wanted

ROOT = Path(__file__).resolve().parents[1]
SMALL = yaml.safe_load((ROOT / "tests/small.yml").read_text(encoding="utf-8"))
OWN = [room for room in rooms.rooms() if hasattr(rooms.part(room, "measure"), "kept")]
# Rooms that also read fits of the main comparison, or read no others.
SHARED = ("coefficients", "entropy_loss", "reasons", "text", "tinting")
LEARNED = "layer_wise_adamerging"


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout of the test's own, without a kept fit."""
    monkeypatch.setattr(places, "committed", lambda: tmp_path / "results")
    return tmp_path


# ---------------------------------------------------------------------------------------------- what is to be kept


def values_of(room):
    """Parameters of a room's small run, what it leaves to the defaults of `measure` among them."""
    taken = inspect.signature(rooms.part(room, "measure").measure).parameters.values()
    return {p.name: p.default for p in taken if p.default is not p.empty} | SMALL[room]


def own(room):
    """The fits that a room's small run wants, in its order."""
    return list(rooms.part(room, "measure").kept(**values_of(room))) if room in OWN else []


def shared(room):
    """Those of the main comparison that it wants too: of one method with every seed, or of all forms with the first."""
    values = values_of(room)
    learning = {name: values[name] for name in ("steps", "lr", "batch_size") if name in values}
    if room == "tinting":
        learning = {name: values[f"adamerging_{name}"] for name in ("steps", "lr", "batches")} | {"batch_size": 16}
    given = {"setting": "transductive", "test_images": 0, "seeds": values["seeds"], **learning}
    found = rooms.part("performance", "measure").kept(methods=METHOD_IDS.values(), **given)
    return [one for one in found if one.method == LEARNED or (room == "coefficients" and one.options["seed"] == 0)]


@pytest.mark.parametrize("room", OWN)
@pytest.mark.parametrize("profile", ["mini", "tiny"])
def test_names_are_unique_and_lead_to_one_fit(room, profile):
    known = refit.parameters(profile, room)
    shown = {"threads", "profile", *rooms.face(room).shown, *rooms.face(room).loads}
    wanted = list(rooms.part(room, "measure").kept(**{n: v for n, v in known.items() if n not in shown}))
    assert wanted and max(Counter(one.name for one in wanted).values()) == 1
    assert refit.names(profile, room) == [f"{room}-{one.name}" for one in wanted]
    found, experiment = refit.one(profile, f"{room}-{wanted[-1].name}")
    assert experiment == room and (found.name, found.options) == (wanted[-1].name, wanted[-1].options)


def test_rooms_that_keep_nothing_want_nothing():
    assert set(OWN) == {"performance", "generalisation", "robustness", "reasons", "text", "tinting"}
    assert all(refit.names("mini", room) == [] for room in rooms.rooms() if room not in OWN)


def test_an_unknown_name_is_told_the_nearest():
    with pytest.raises(ValueError, match="'tinting-tint_pp-2'"):
        refit.one("mini", "tinting-tint_p-2")


def test_every_committed_fit_is_one_that_an_experiment_wants():
    for folder in (ROOT / "results").glob("*/fits"):
        stale = {path.stem for path in folder.glob("*.safetensors")} - set(refit.names(folder.parent.name))
        assert not stale, f"{folder.parent.name}: no experiment reads {sorted(stale)}"


@pytest.mark.parametrize("room", sorted({*OWN, *SHARED}))
def test_a_run_reads_every_fit_that_it_wants_and_computes_none_anew(room, suite, checkout, monkeypatch):
    computed, used = [], set()
    mine, others = own(room), shared(room) if room in SHARED else []
    for number, one in enumerate([*mine, *others]):
        part = one.part(suite)
        fit = run_method(one.method, part, cache=False, **one.options, progress=False)
        kept = fits.shorten(fit, part, {"name": one.name})
        fits.write(kept, fits.folder(suite.profile) / f"{number}.safetensors")

    def spied_method(method, suite, **hyper):
        if method in fits.LENGTH:
            computed.append((method, hyper))
        return run_method(method, suite, **hyper)

    def spied_model(kept, suite, model=fits.model):
        used.add(kept.about["name"])
        return model(kept, suite)

    monkeypatch.setattr(measuring, "run_method", spied_method)
    monkeypatch.setattr(fits, "model", spied_model)
    rooms.part(room, "measure").measure(suite, **SMALL[room])
    assert [fit for fit in computed if "layer" not in fit[1]] == []  # short fits of Tinting's pilot are not kept
    assert used == {one.name for one in [*mine, *others]}


# ------------------------------------------------------------------------------------- computed, installed, replayed


OPTIONS = {"steps": 30, "lr": 0.01, "batch_size": 4, "batches": 1, "seed": 1}
NAME = f"performance-{LEARNED}-1"


@pytest.fixture
def toy_world(suite, checkout, monkeypatch):
    """A world of the toy suite, in which the main comparison wants one fit; gives its only name → `Wanted`."""
    wanted = {NAME: Wanted(f"{LEARNED}-1", LEARNED, OPTIONS, lambda whole: whole.some_images(20))}
    monkeypatch.setattr(refit, "wanted", lambda profile, room: wanted if room == "performance" else {})
    monkeypatch.setattr(refit, "suite_of", lambda profile, room: suite)
    fits.write(refit.compute("toy", NAME), checkout / f"new/{NAME}.safetensors")
    return wanted


def installed(checkout, capsys):
    """What installing the new fits prints, and where the only one then lies."""
    refit.app(["install", "toy", str(checkout / "new")], standalone_mode=False)
    return capsys.readouterr().out.strip(), fits.folder("toy") / f"{NAME}.safetensors"


def checked(capsys):
    """Exit status and last line of a check."""
    status = refit.app(["check", "toy"], standalone_mode=False)
    return status, capsys.readouterr().out.strip().splitlines()


def test_a_fit_made_by_its_name_is_the_method_on_its_part_of_the_suite(suite, toy_world, checkout, capsys):
    said, path = installed(checkout, capsys)
    kept, part = fits.read(path), suite.some_images(20)
    again = run_method(LEARNED, part, cache=False, **OPTIONS, progress=False)
    assert said == f"{NAME}: new" and not list((checkout / "new").iterdir())
    assert kept.path[-1].equal(again.coefficients.values) and kept.data == fits.digests(part)
    assert kept.about["environment"]["device"] == "cpu" and kept.about["seconds"] > 0


def test_a_new_fit_in_the_place_of_another_says_how_far_it_moved(toy_world, checkout, capsys):
    _, path = installed(checkout, capsys)
    kept = fits.read(path)
    moved = kept.path.clone()
    moved[-1, 0, 0] += 0.25
    fits.write(dataclasses.replace(kept, path=moved), checkout / f"new/{NAME}.safetensors")
    assert installed(checkout, capsys)[0] == f"{NAME}: the last coefficients moved by 2.5e-01 at most"
    shorter = dataclasses.replace(kept, path=kept.path[:3], steps=kept.steps[:3])
    fits.write(shorter, checkout / f"new/{NAME}.safetensors")
    assert installed(checkout, capsys)[0] == f"{NAME}: another length"


def test_a_check_passes_what_was_just_made_and_names_an_altered_coefficient(toy_world, checkout, capsys):
    _, path = installed(checkout, capsys)
    assert checked(capsys) == (0, ["1 of 1 kept fits lead along their path"])
    kept = fits.read(path)
    altered = kept.path.clone()
    altered[2, 0, 0] += 2 * fits.tolerance(kept)
    fits.write(dataclasses.replace(kept, path=altered), path)
    status, lines = checked(capsys)
    assert status == 1 and lines[0] == "0 of 1 kept fits lead along their path" and lines[1].startswith(path.name)


def test_a_check_tells_other_data_from_other_parameters(suite, toy_world, checkout, capsys):
    _, path = installed(checkout, capsys)
    one = toy_world[NAME]
    toy_world[NAME] = dataclasses.replace(one, options={**OPTIONS, "lr": 0.02})
    with pytest.raises(ValueError, match="other parameters than performance has"):
        refit.replay(path)
    toy_world[NAME] = dataclasses.replace(one, part=lambda whole: whole)
    with pytest.raises(ValueError, match="made from other data"):
        refit.replay(path)
    del toy_world[NAME]
    with pytest.raises(ValueError, match="no experiment keeps a fit"):
        refit.replay(path)
