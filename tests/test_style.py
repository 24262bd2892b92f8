"""Colours that everybody can tell apart, and names that do not cover each other."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pytest
from madeup import LEVELS
from matplotlib.text import Text
from vision import VISION, lab

from adamerging_lib import methods
from adamerging_study.style import (
    METHOD_COLOURS,
    METHOD_DASHES,
    NEEDS_COLOURS,
    colour,
    edge_labels,
    name_points,
    spread,
    styled,
)  # fmt: skip


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.mark.parametrize("vision", VISION)
def test_colours_can_be_told_apart(vision):
    for a, b in itertools.combinations(METHOD_COLOURS, 2):
        distance = np.linalg.norm(lab(METHOD_COLOURS[a], vision) - lab(METHOD_COLOURS[b], vision))
        assert distance >= 15 or METHOD_DASHES.get(a) != METHOD_DASHES.get(b), (a, b, distance)


def test_every_coloured_method_is_registered_and_other_methods_need_something():
    assert set(METHOD_COLOURS) <= set(methods().index)
    assert set(LEVELS) <= set(METHOD_COLOURS)
    assert colour("ties", "labels") == METHOD_COLOURS["ties"]
    for needs in set(methods()["needs"]):
        assert colour("knots", needs) == NEEDS_COLOURS[needs]
    for needs in (None, "luck"):
        with pytest.raises(ValueError, match="'knots'"):
            colour("knots", needs)


def test_labels_are_spread_and_moved_no_more_than_needed():
    values = [95.0, 80.0, 80.5, 81.0, 48.0]
    moved = spread(values, gap=3.0)
    assert np.diff(np.sort(moved)).min() >= 3 - 1e-9
    assert moved[0] == 95 and moved[4] == 48
    assert np.argsort(moved).tolist() == np.argsort(values).tolist()
    assert np.mean(moved[1:4]) == pytest.approx(80.5)


def test_labels_stay_inside_where_there_is_room():
    moved = spread([99.0, 100.0, 100.0], gap=3.0, low=0.0, high=100.0)
    assert moved.tolist() == [94.0, 97.0, 100.0]


@pytest.mark.parametrize("side", ["left", "right"])
def test_names_at_the_edge_do_not_cover_each_other(side):
    figure, axes = plt.subplots()
    axes.set(xlim=(0, 1), ylim=(0, 100))
    points = {"low": (0.5, 10.0), "upper": (0.2, 51.0), "lower": (0.3, 50.0), "middle": (0.4, 50.5)}
    edge_labels(axes, points, side)
    figure.draw_without_rendering()
    boxes = {text.get_text(): Text.get_window_extent(text) for text in axes.texts}  # without the line to the point
    heights = {text: (box.y0 + box.y1) / 2 for text, box in boxes.items()}
    assert sorted(heights, key=heights.get) == sorted(points, key=lambda name: points[name][1])
    for a, b in itertools.combinations(boxes.values(), 2):
        assert a.y1 <= b.y0 or b.y1 <= a.y0
    inside = axes.get_window_extent()
    assert all(box.x1 <= inside.x0 if side == "left" else box.x0 >= inside.x1 for box in boxes.values())
    assert {text.get_text(): text.xy for text in axes.texts} == points


def test_names_beside_points_cover_neither_names_nor_points_while_there_is_room():
    figure, axes = plt.subplots()
    axes.set(xlim=(0, 1), ylim=(0, 1))
    points = [("first", 0.5, 0.5, "k"), ("second", 0.5, 0.53, "k"), ("third", 0.98, 0.5, "k"), ("", 0.55, 0.5, "k")]
    name_points(axes, points)
    figure.draw_without_rendering()
    boxes = {text.get_text(): Text.get_window_extent(text) for text in axes.texts}
    assert list(boxes) == ["first", "second", "third"]
    for a, b in itertools.combinations(boxes.values(), 2):
        assert not a.overlaps(b)
    inside = axes.get_window_extent()
    assert all(inside.x0 <= box.x0 and box.x1 <= inside.x1 for box in boxes.values())
    for _, x, y, _ in points:
        assert not any(box.contains(*axes.transData.transform((x, y))) for box in boxes.values())


def test_drawing_leaves_the_callers_settings_alone():
    @styled
    def draw():
        return plt.rcParams["font.size"]

    before = dict(plt.rcParams)
    with plt.rc_context({"font.size": 33.0}):
        assert draw() == 10.5 and plt.rcParams["font.size"] == 33.0
    assert dict(plt.rcParams) == before
