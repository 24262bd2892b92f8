"""The seam of methods that learn: options in signature and docstring, checked before anything runs, and steps."""

from __future__ import annotations

import inspect

import pytest
import torch

import adamerging_lib as am
from adamerging_lib.learning.adaptation import Adaptation, learns
from adamerging_lib.learning.streams import seeded

RECIPES = {"long": {"steps": 500, "lr": 1e-3, "batch_size": 16}, "short": {"steps": 5, "lr": 1e-2, "batch_size": 4}}


@learns(RECIPES, images="test")
def method(suite: am.Suite, run: Adaptation, *, width: int = 3) -> tuple[am.Suite, Adaptation, int]:
    """A method.

    Arguments:
        suite: handed through.
        width: handed through.
        lr: of nothing.

    Returns:
        What it was given.
    """
    return suite, run, width


@learns(images="train")
def plain(suite: am.Suite, run: Adaptation) -> Adaptation:
    """A method without recipes."""
    return run


def test_the_signature_shows_own_and_common_options():
    shown = inspect.signature(method).parameters
    assert list(shown) == [
        "suite", "recipe", "steps", "lr", "batch_size", "width", "seed", "setting", "device", "progress",
    ]  # fmt: skip
    assert shown["recipe"].default == "long" and shown["steps"].default is None
    assert shown["lr"].annotation == "float | None" and shown["steps"].annotation == "int | None"
    assert list(inspect.signature(plain).parameters) == ["suite", "seed", "setting", "device", "progress"]


def test_the_docstring_names_every_option_once_and_keeps_what_the_method_says():
    text = inspect.getdoc(method)
    arguments, returns = text.split("\n\nReturns:")
    lines = [line.strip().partition(":")[0] for line in arguments.splitlines()[3:]]
    assert sorted(lines) == sorted(inspect.signature(method).parameters)
    assert (
        "lr: of nothing." in arguments
        and "images per batch and task (16)" in arguments
        and "``long`` or ``short``" in arguments
    )
    assert returns == "\n    What it was given."
    assert "no test image is read" in inspect.getdoc(plain)


def test_a_call_hands_over_checked_options():
    _, run, width = method("suite", recipe="short", lr=0.5, seed=7, setting="inductive", width=4, progress=False)
    assert run == Adaptation(
        {"steps": 5, "lr": 0.5, "batch_size": 4}, "test", 7, "inductive", torch.device("cpu"), False
    )
    assert width == 4 and method(suite="suite")[0] == "suite"
    assert plain("suite", seed=3) == Adaptation(images="train", seed=3, progress=True)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"recipe": "quick"}, "quick"),
        ({"steps": -1}, "steps=-1"),
        ({"setting": "online"}, "online"),
        ({"device": "abacus"}, "abacus"),
    ],
)
def test_a_call_refuses_what_is_of_no_use(given, named):
    with pytest.raises(ValueError, match=named):
        method("suite", **given)


def test_an_unknown_option_is_a_type_error_as_of_any_function():
    with pytest.raises(TypeError, match="epochs"):
        method("suite", epochs=3)
    with pytest.raises(TypeError, match="steps"):
        plain("suite", steps=3)


def test_streams_come_from_where_the_method_learns(suite):
    options = {"batch_size": 4}
    unlabelled = Adaptation(options, images="test").streams(suite)
    assert [stream.labels for stream in unlabelled] == [None] * 3 and unlabelled[0].size == 4
    assert unlabelled[0].images is suite.test[suite.tasks[0]].images
    labelled = Adaptation(options, images="labels").streams(suite)
    assert all(stream.labels is suite.train[task].labels for stream, task in zip(labelled, suite.tasks, strict=True))


def test_generators_are_of_the_seed():
    run = Adaptation(seed=5)
    assert run.generator("order", 3).initial_seed() == seeded("order", 5, 3).initial_seed()
    assert run.generator("order", 3).initial_seed() != Adaptation(seed=6).generator("order", 3).initial_seed()


def test_steps_go_on_where_an_earlier_run_ended_and_remember_all_losses():
    steps = Adaptation({"steps": 4}).steps("test", ("a", "b"), done=[torch.tensor([1.0, 2.0])])
    for step in steps:
        steps.add(torch.tensor([float(step), 0.5]))
    history = steps.history()
    assert history.columns.tolist() == ["step", "loss", "a", "b"] and history["step"].tolist() == [0, 1, 2, 3]
    assert history["loss"].tolist() == [3.0, 1.5, 2.5, 3.5]
    assert len(Adaptation({"steps": 0}).steps("test", ("a", "b")).history()) == 0


@pytest.mark.parametrize(("total", "bad", "seen"), [(10, 3, 3), (200, 3, 4), (200, 199, 199)])
def test_losses_that_are_nan_are_found_soon_and_named(total, bad, seen):
    steps = Adaptation().steps("test", ("a", "b"), total=total, loss="distance")
    with pytest.raises(ValueError, match=f"the distance of b is NaN at step {seen}"):
        for step in steps:
            steps.add(torch.tensor([1.0, torch.nan if step >= bad else 1.0]))


def test_the_bar_counts_to_the_end_and_shows_what_it_is_given(capsys):
    steps = Adaptation({"steps": 3}, progress=True).steps("test", ("a", "b"))
    for _ in steps:
        steps.add(torch.tensor([1.0, 0.25]), kept=torch.tensor(0.5), spread=torch.tensor([0.0, 1.0]))
    out, err = capsys.readouterr()
    assert out == "" and "3/3" in err
    assert steps.bar.postfix == "kept=0.5, loss=1.25, spread=0.00..1.00"
