"""Figures draw the record's numbers, in colours that everybody can tell apart."""

import itertools
import subprocess
import sys

import matplotlib
import numpy as np
import pytest

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from adamerging_study.figures.style import spread
from madeup import LEVELS, SCALINGS, performance_rows
from matplotlib.colors import to_hex, to_rgb

from adamerging_lib import methods, records
from adamerging_study import figures, tables

# Machado, Oliveira and Fernandes 2009, full severity, on linear RGB.
VISION = {
    "typical": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


@pytest.fixture(scope="module")
def rows():
    return performance_rows()


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def lab(colour, vision):
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.array(VISION[vision]) @ linear, 0, 1)
    to_xyz = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]]
    t = np.array(to_xyz) @ seen / [0.95047, 1, 1.08883]
    f = np.where(t > 0.008856, np.cbrt(t), 7.787 * t + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("vision", VISION)
def test_colours_can_be_told_apart(vision):
    for a, b in itertools.combinations(figures.METHOD_COLOURS, 2):
        distance = np.linalg.norm(lab(figures.METHOD_COLOURS[a], vision) - lab(figures.METHOD_COLOURS[b], vision))
        assert distance >= 15 or figures.METHOD_DASHES.get(a) != figures.METHOD_DASHES.get(b), (a, b, distance)


def test_every_coloured_method_is_registered_and_an_uncoloured_one_is_refused():
    assert set(figures.METHOD_COLOURS) <= set(methods().index)
    assert set(LEVELS) <= set(figures.METHOD_COLOURS)
    with pytest.raises(ValueError, match="'knots' has no colour.*METHOD_COLOURS"):
        figures.colour("knots")


def test_figure_1_draws_sweeps_as_curves_and_everything_else_as_level_lines(rows):
    axes = figures.accuracy_over_scaling(rows).axes[0]
    drawn = {to_hex(line.get_color()): line for line in axes.lines}
    curve = drawn[figures.colour("task_arithmetic").lower()]
    np.testing.assert_allclose(curve.get_xdata(), SCALINGS)
    np.testing.assert_allclose(curve.get_ydata(), [70 - 40 * (s - 0.2) ** 2 for s in SCALINGS])
    for method in set(LEVELS) - {"task_arithmetic", "ties"}:
        np.testing.assert_allclose(drawn[figures.colour(method).lower()].get_ydata(), LEVELS[method])
    assert {text.get_text() for text in axes.texts} == {tables.label(method) for method in LEVELS}
    low, high = axes.get_ylim()
    assert low < min(line.get_ydata().min() for line in axes.lines) and high == 100


def test_published_marks_of_figure_1_only_when_asked_for(rows):
    plain, marked = (figures.accuracy_over_scaling(rows, mark).axes[0] for mark in (False, True))
    assert plain.get_legend() is None
    assert [text.get_text() for text in marked.get_legend().texts] == ["published, ViT-B/32"]
    marks = [line for line in marked.lines if line.get_marker() == "D" and len(line.get_xdata())]
    found = {(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in marks}
    assert found == {(0.3, 69.1), (0.3, 72.9), (1.0, 88.9), (1.0, 80.1)}


def test_figure_1_works_without_a_sweep(rows):
    axes = figures.accuracy_over_scaling(rows[rows["condition"] == "clean"].drop(columns="scaling")).axes[0]
    assert len(axes.lines) == len(LEVELS)


def test_average_bars_start_at_zero_and_are_sorted(rows):
    axes = figures.average_accuracies(rows, "ViT-B-32").axes[0]
    assert axes.get_xlim()[0] == 0
    assert [bar.get_width() for bar in axes.patches] == pytest.approx(sorted(LEVELS.values()))
    names = [tick.get_text() for tick in axes.get_yticklabels()]
    assert names == [tables.label(method) for method in sorted(LEVELS, key=LEVELS.get)]
    marks = next(line for line in axes.lines if line.get_marker() == "D")
    theirs = dict(zip(names, marks.get_xdata(), strict=True))
    assert theirs["Ties-Merging"] == 72.4 and np.isnan(theirs["Pretrained"])


def test_gap_heat_map_shows_the_gaps_rounded(rows):
    axes = figures.gaps(rows).axes[0]
    shown = np.array([float(text.get_text()) for text in axes.texts]).reshape(len(LEVELS) - 1, 9)
    expected = tables.gap_to_experts(rows)["Average"].sort_values(ascending=False)
    np.testing.assert_allclose(shown[:, -1], expected, atol=0.51)
    assert axes.get_yticklabels()[0].get_text() == "Traditional MTL"


def test_labels_are_spread_and_moved_no_more_than_needed():
    values = [95.0, 80.0, 80.5, 81.0, 48.0]
    moved = spread(values, gap=3.0)
    assert np.diff(np.sort(moved)).min() >= 3 - 1e-9
    assert moved[0] == 95 and moved[4] == 48
    assert np.argsort(moved).tolist() == np.argsort(values).tolist()
    assert np.mean(moved[1:4]) == pytest.approx(80.5)


def test_drawing_leaves_the_callers_settings_alone(rows):
    before = dict(plt.rcParams)
    figures.average_accuracies(rows)
    assert dict(plt.rcParams) == before


def test_readme_picture_is_made_by_one_command(rows, tmp_path):
    plain = [row.dropna().to_dict() for _, row in rows.iterrows()]
    record = records.new("performance", "mini", {}, None, plain, [0], "2026-01-01T00:00:00", 1.0)
    records.write(record, tmp_path / "performance.json")
    command = [sys.executable, "-W", "error", "-m", "adamerging_study.figures"]
    subprocess.run([*command, tmp_path / "performance.json", tmp_path / "readme.png"], check=True)
    height, width, _ = plt.imread(tmp_path / "readme.png").shape
    assert width > 1000 and height > 400
