"""The coefficient experiment: what its rows hold; tables, numbers and figures against plain arithmetic."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from madeup import named

from adamerging_lib import Coefficients, methods, records, run_method
from adamerging_study import claims, fits, outcomes
from adamerging_study.coefficients import LAYER_WISE, TASK_WISE, measure, numbers, show
from adamerging_study.measuring import Run

OPTIONS = {"seeds": [0, 1], "steps": 7, "lr": 0.05, "batch_size": 4}


@pytest.fixture(scope="module")
def frame(suite):
    return records.frame(Run("coefficients", "toy", OPTIONS).measure(suite))


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


# Layer-wise coefficients of two tasks: (block, role) → what each task's tensor has; block 1 of three is in the middle.
SHALLOW, DEEP = "block_0", "block_2"
FINAL = {
    ("embeddings", "embedding, projection"): (0.0, 1.0),
    (SHALLOW, "MLP in"): (0.1, 0.3),
    (SHALLOW, "attention in"): (0.3, 0.5),
    (SHALLOW, "bias"): (0.9, 0.9),
    ("block_1", "MLP in"): (1.0, 1.0),
    ("block_1", "attention in"): (1.0, 1.0),
    ("block_1", "bias"): (1.0, 1.0),
    (DEEP, "MLP in"): (0.5, 0.5),
    (DEEP, "attention in"): (0.4, 0.6),
    (DEEP, "bias"): (0.1, 0.3),
}
FORWARD, BACKWARD = (np.ravel(list(FINAL.values())[::way]) for way in (1, -1))
ACCURACY = {0: 80, 1: 84, 2: 81}


def made_up(seeds=(0, 1, 2), n=100):
    """Seed s of layer-wise AdaMerging reverses the coefficients s times."""
    rows = [
        {"kind": "path", "method": method, "seed": 0, "task": task, "step": step, "coefficient": 0.3 + step * k * slope}
        for method, slope in zip(TASK_WISE, (0.02, -0.01), strict=True)
        for k, task in enumerate("ab")
        for step in (0, 5, 7)
    ]
    for method, seed in [(LAYER_WISE[1], 0), *((LAYER_WISE[0], seed) for seed in seeds)]:
        values = list(FINAL.values())[:: 1 - 2 * (seed % 2)]
        rows += [
            {"kind": "final", "method": method, "seed": seed, "task": task, "row": f"{block} {role}", "block": block,
             "role": role, "coefficient": pair[k]}
            for (block, role), pair in zip(FINAL, values, strict=True)
            for k, task in enumerate("ab")
        ]  # fmt: skip
        for task in "ab":
            right = outcomes.pack(np.arange(n) < ACCURACY[seed])
            rows.append({"method": method, "condition": "clean", "seed": seed, "task": task, "n": n,
                         "setting": "transductive", "accuracy": float(ACCURACY[seed]), "right": right})  # fmt: skip
        rows.append({**rows[-1], "task": "Average", "n": 2 * n, "right": None})
    known = methods().to_dict("index")
    return records.new("coefficients", "toy", {}, None, rows, seeds, "2026-01-01", 0.0, methods=known)


@pytest.mark.parametrize(
    "name, role",
    [
        ("transformer.resblocks.0.attn.in_proj_weight", "attention in"),
        ("vision_model.encoder.layers.3.self_attn.q_proj.weight", "attention in"),
        ("blocks.2.attn.qkv.weight", "attention in"),
        ("blocks.2.attn.proj.weight", "attention out"),
        ("transformer.resblocks.0.attn.out_proj.weight", "attention out"),
        ("transformer.resblocks.0.mlp.c_fc.weight", "MLP in"),
        ("vision_model.encoder.layers.3.mlp.fc2.weight", "MLP out"),
        ("transformer.resblocks.0.attn.in_proj_bias", "bias"),
        ("transformer.resblocks.0.ln_1.bias", "LayerNorm"),
        ("vision_model.encoder.layers.3.layer_norm2.weight", "LayerNorm"),
        ("blocks.2.norm1.weight", "LayerNorm"),
        ("ln_post.weight", "LayerNorm"),
        ("conv1.weight", "embedding, projection"),
        ("proj", "embedding, projection"),
    ],
)
def test_roles_of_tensors(name, role):
    assert measure.role_of(name) == role


def test_rows_are_whole(frame, suite):
    tensors = len(suite.task_vectors().vectors)
    paths, final = frame[frame["kind"] == "path"], frame[frame["kind"] == "final"]
    assert sorted(paths["step"].unique()) == [0, 5, 7]
    assert (paths.loc[paths["step"] == 0, "coefficient"] - 0.3).abs().max() < 1e-6
    assert len(final) == 3 * tensors * 3  # two methods, one of them with two seeds; three tasks
    assert final["coefficient"].between(0, 1).all()


def test_paths_of_kept_fits_have_the_steps_that_were_kept(suite):
    """Every fifth of the first 25, every 50th, and the last; a whole fit has every fifth."""
    options = {"steps": 107, "lr": 0.01, "batch_size": 2, "batches": 1}
    fit = run_method(TASK_WISE[0], suite, cache=False, **options, progress=False)
    kept = fits.model(fits.shorten(fit, suite), suite)
    whole, few = (pd.DataFrame(measure.rows_of(one, seed=0)) for one in (fit, kept))
    assert few["step"].unique().tolist() == [0, 5, 10, 15, 20, 25, 50, 100, 107]
    assert whole["step"].unique().tolist() == [*range(0, 107, 5), 107]
    both = whole.merge(few, on=["task", "step"])
    assert len(both) == len(few) and both["coefficient_x"].equals(both["coefficient_y"])
    line = show.paths(named(few)).axes[0].lines[0]
    assert line.get_xdata().tolist() == few["step"].unique().tolist() and line.get_marker() == "o"


def test_final_rows_name_block_and_role():
    table = Coefficients(
        torch.tensor([[0.5, 0.25]]), ("a",), ("blocks.0.mlp.fc1.weight", "blocks.1.norm1.bias"), "tensor"
    )
    first, second = measure.final_rows(table, method="m")
    assert (first["block"], first["role"], first["coefficient"]) == ("block_0", "MLP in", 0.5)
    assert (second["block"], second["role"], second["method"]) == ("block_1", "LayerNorm", "m")


def test_depth_against_plain_means(frame):
    method = LAYER_WISE[0]
    rows = [
        row for row in frame.to_dict("records") if (row["method"], row["kind"], row["seed"]) == (method, "final", 0)
    ]
    picked = [row["coefficient"] for row in rows if row["role"] == "MLP in" and row["block"] == "block_1"]
    assert numbers.depth(frame, method).loc["MLP in", 1] == pytest.approx(sum(picked) / 3)


def test_numbers_by_hand():
    found = {name: values[0] for name, values in claims.numbers_of(made_up()).items()}
    means = [np.mean(pair) for pair in FINAL.values()]
    assert found == pytest.approx({
        "tasks_apart_tw": 0.14, "tasks_apart_twpp": 0.07,
        "tensors_apart_lw": np.std(means, ddof=1), "tensors_apart_lwpp": np.std(means, ddof=1),
        "deeper_lw": (0.5 + 0.5 + 0.2) / 3 - (0.2 + 0.4 + 0.9) / 3, "deeper_lwpp": (1.2 - 1.5) / 3,
        "deeper_matrices_lw": (0.3 + 0.1) / 2, "deeper_matrices_lwpp": (0.3 + 0.1) / 2,
        "seeds_alike": np.corrcoef(FORWARD, BACKWARD)[0, 1],
        "seeds_apart": 4,
    })  # fmt: skip


def test_the_distance_between_seeds_has_an_interval():
    low, high = np.quantile(claims.numbers_of(made_up())["seeds_apart"][1:], [0.025, 0.975])
    assert 0 < low < 4 < high < 8


def test_one_seed_is_not_compared_with_itself():
    record = made_up(seeds=(0,))
    verdicts = {verdict.claim.id: verdict.word for verdict in claims.verdicts_of(record)}
    assert [name for name, word in verdicts.items() if word == "not run"] == ["seeds-alike"]
    assert np.isnan(claims.numbers_of(record)["seeds_apart"][0])


def test_claims_on_depth_follow_the_rows():
    verdicts = {verdict.claim.id: verdict.word for verdict in claims.verdicts_of(made_up())}
    assert verdicts["deep"] == "does not hold" and verdicts["deep-matrices"] == "holds"


def test_tables_by_hand():
    frame = records.frame(made_up())
    line = show.distribution(frame).loc["Layer-wise AdaMerging"]
    assert line.tolist() == ["20", f"{FORWARD.mean():.2f}", f"{FORWARD.std(ddof=1):.2f}", "5.0 %", "35.0 %"]
    cells = show.by_role(frame)["Layer-wise AdaMerging++"].loc["MLP in"]
    assert cells.tolist() == ["0.20", "0.50"]
    seeds = show.seeds(frame)
    assert seeds["average accuracy"].tolist() == ["80.0", "84.0", "81.0"]
    assert seeds["correlation with the first"].tolist()[::2] == ["1.00", "1.00"]
    assert seeds.loc[1, "mean distance to the first"] == f"{np.abs(FORWARD - BACKWARD).mean():.3f}"


def test_paths_are_drawn_step_by_step():
    panels = show.paths(records.frame(made_up())).axes
    assert [axes.get_title(loc="left") for axes in panels] == ["Task-wise AdaMerging", "Task-wise AdaMerging++"]
    for axes, slope in zip(panels, (0.02, -0.01), strict=True):
        np.testing.assert_allclose(axes.lines[0].get_xydata(), [(0, 0.3), (5, 0.3), (7, 0.3)])
        np.testing.assert_allclose(axes.lines[1].get_xydata(), [(step, 0.3 + slope * step) for step in (0, 5, 7)])
        assert [text.get_text() for text in axes.texts] == ["a", "b"]


def test_maps_hold_every_coefficient():
    figure = show.maps(records.frame(made_up()))
    images = [axes.images[0] for axes in figure.axes if axes.images]
    assert len(images) == 2
    for image in images:
        np.testing.assert_allclose(image.get_array(), np.transpose(list(FINAL.values())))


def test_profile_draws_the_means_over_tasks():
    panels = show.profile(records.frame(made_up())).axes
    assert len(panels) == 2
    drawn = dict(zip((text.get_text() for text in panels[0].texts), panels[0].lines, strict=True))
    np.testing.assert_allclose(drawn["MLP in"].get_xydata(), [(0, 0.2), (1, 1.0), (2, 0.5)])
    np.testing.assert_allclose(drawn["bias"].get_xydata(), [(0, 0.9), (1, 1.0), (2, 0.2)])
    assert not panels[0].collections  # of one seed
    ends = [segment[:, 1].tolist() for bars in panels[1].collections for segment in bars.get_segments()]
    np.testing.assert_allclose(ends[:3], [(0.2, 0.5), (1.0, 1.0), (0.4, 0.5)])


def test_maps_say_what_their_columns_are():
    rows = [("embeddings", "bias"), ("block_0", "LayerNorm"), ("block_0", "LayerNorm"), ("block_0", "MLP in")]
    tensors = pd.DataFrame([{"row": k, "block": block, "role": role} for k, (block, role) in enumerate(rows)])
    told = " ".join(show._columns(tensors).split())
    assert told == "columns of a block: LayerNorm ×2, MLP in; outside blocks: embeddings"


def test_the_authors_file_is_drawn_the_same_way(tmp_path):
    row = lambda value: [1.0] + [value] * 8  # noqa: E731
    rows = [row(0.1 + 0.001 * r) for r in range(158)]
    path = tmp_path / "merging_cofficient.py"
    path.write_text(f"if method == 'lw_adamerging' and model == 'ViT-B-32':\n    table = {rows}\n")
    theirs = measure.published_rows(str(path))
    assert len(theirs) == 158 * 8 and set(theirs["method"]) == {LAYER_WISE[0]}
    axes = show.maps(theirs).axes[0]
    assert axes.get_title(loc="left") == "Layer-wise AdaMerging"
    np.testing.assert_allclose(axes.images[0].get_array()[0], [0.1 + 0.001 * r for r in range(158)])
    with pytest.raises(ValueError, match="ViT-L-14"):
        measure.published_rows(str(path), "ViT-L-14")
