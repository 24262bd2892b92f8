"""Figures draw the record's numbers, in colours that everybody can tell apart."""

import matplotlib
import numpy as np
import pandas as pd
import pytest

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from adamerging_study import figures


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_cosine_map_leaves_the_diagonal_out():
    frame = pd.DataFrame([[1, 0.1, -0.2], [0.1, 1, 0.3], [-0.2, 0.3, 1]], index=list("abc"), columns=list("abc"))
    axes = figures.cosines(frame).axes[0]
    assert [text.get_text() for text in axes.texts] == ["0.10", "-0.20", "0.10", "0.30", "-0.20", "0.30"]


def test_expert_paths_have_a_panel_a_task():
    path = pd.DataFrame({0.0: [50, 40, 30], 0.5: [70, 60, 50], 1.0: [90, 80, 85]}, index=list("abc"))
    figure = figures.expert_paths(path)
    assert [axes.get_title(loc="left") for axes in figure.axes if axes.get_visible()] == ["a", "b", "c"]
    np.testing.assert_allclose(figure.axes[0].lines[-1].get_ydata(), [50, 70, 90])


def test_contact_sheet_shows_the_images_unscaled():
    rng = np.random.default_rng(0)
    images = {task: rng.integers(0, 256, (5, 3, 8, 8), dtype=np.uint8) for task in ("a", "b")}
    figure = figures.contact_sheet(images)
    strip = figure.axes[1].images[0].get_array()
    np.testing.assert_array_equal(strip[:, 10:18], images["b"][1].transpose(1, 2, 0))
    assert [axes.get_ylabel() for axes in figure.axes] == ["a", "b"]
