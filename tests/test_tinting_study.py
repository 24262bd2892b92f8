"""The study of Tinting: what is measured on the toy suite, and that numbers, tables and figures say it."""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
import pytest

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from madeup import named

from adamerging_lib import evaluate, run_method
from adamerging_study import claims, judge
from adamerging_study.sample import Sample
from adamerging_study.tinting import VARIANTS, numbers, show
from adamerging_study.tinting.measure import measure, pilot_layers

AVERAGES = {
    ("task_arithmetic", None, "transductive"): 60.0,
    ("task_arithmetic", None, "inductive"): 59.0,
    ("individual", None, "transductive"): 96.0,
    ("individual", None, "inductive"): 95.5,
    ("layer_wise_adamerging", None, "transductive"): 67.0,
    ("layer_wise_adamerging", None, "inductive"): 65.0,
    ("tint", None, "transductive"): 94.0,
    ("tint", None, "inductive"): 92.0,
    ("tint_pp", None, "transductive"): 94.5,
    ("tint_pp", None, "inductive"): 92.5,
    ("tint", "coefficients only", "transductive"): 75.0,
    ("tint", "layer only", "transductive"): 74.0,
    ("tint", "soft labels", "transductive"): 94.25,
    ("tint", "surest half", "transductive"): 80.0,
}
PILOT = {"head": 86.0, "proj": 85.0, "transformer.resblocks.1.mlp.c_proj": 84.0}
KEPT = {"digits": (97.0, 90.0, 40.0), "signs": (100.0, 80.0, None)}


def made_up(averages=AVERAGES, pilot=PILOT, kept=KEPT):
    common = {"condition": "clean", "seed": 0, "n": 100}
    cells = [(*which, None, level) for which, level in averages.items()]
    cells += [("tint", "pilot", "transductive", layer, level) for layer, level in pilot.items()]
    rows = []
    for method, variant, setting, layer, level in cells:
        about = {"method": method, "variant": variant, "setting": setting, "layer": layer, **common}
        rows += [{**about, "task": task, "accuracy": level + d} for task, d in (("digits", -1), ("signs", 1))]
        rows.append({**about, "task": "Average", "accuracy": level})
    for epoch, (share, agree) in enumerate([(94.0, 60.0), (95.0, 85.0)]):
        rows += [
            {"method": "tint_pp", "quantity": "kept", "epoch": epoch, "value": share},
            {"method": "tint_pp", "quantity": "agreement", "epoch": epoch, "value": agree},
        ]
    for task, values in kept.items():
        for quantity, value in zip(("kept in the end", "right if kept", "right if dropped"), values, strict=True):
            rows.append({"method": "tint_pp", "task": task, "quantity": quantity, "value": value})
    rows.append({"method": "tint", "quantity": "share of the encoder", "value": 0.125})
    return named(pd.DataFrame(rows).astype({"value": float}))


def sample_of(rows):
    where = {**claims.WHERE, "variant": None, "layer": None, "quantity": None, "epoch": None}
    return Sample(rows, draws=0, where=where)


@pytest.fixture(scope="module")
def rows():
    return made_up()


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


# -------------------------------------------------------------------------------------------------------- measuring


@pytest.fixture(scope="module")
def measured(suite, tmp_path_factory):
    options = {"epochs": 2, "pilot_epochs": 1, "layers": ["head", "proj"], "adamerging_steps": 2}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADAMERGING_CACHE", str(tmp_path_factory.mktemp("fits")))
        return pd.DataFrame(measure(suite, **options))


def test_pilot_goes_from_the_head_down(suite):
    blocks = [f"transformer.resblocks.{i}.mlp.c_proj" for i in (1, 0)]
    assert pilot_layers(suite) == ["head", "proj", *blocks]


def test_every_variant_and_setting_is_measured(measured, suite):
    found = measured[measured["task"] == "Average"].fillna({"variant": "", "layer": ""})
    both = ("task_arithmetic", "individual", "layer_wise_adamerging", "tint", "tint_pp")
    expected = {(method, "", "", setting) for method in both for setting in ("transductive", "inductive")}
    expected |= {("tint", variant, "", "transductive") for variant in VARIANTS}
    expected |= {("tint", "pilot", layer, "transductive") for layer in ("head", "proj")}
    assert {tuple(row) for row in found[["method", "variant", "layer", "setting"]].to_numpy()} == expected
    assert len(found) == len(expected)
    fitted = {"recipe": "mini", "epochs": 2, "seed": 0, "progress": False}
    for method, variant, hyper in (
        ("tint_pp", None, {}),
        ("tint", "soft labels", {"targets": "soft"}),
        ("tint", "layer only", {"learn": "layer"}),
    ):
        accuracy = evaluate(suite, run_method(method, suite, **fitted, **hyper))["accuracy"].mean()
        assert show.average(measured, method, variant) == pytest.approx(accuracy)
    alone = run_method("tint", suite, **{**fitted, "epochs": 1}, layer="proj", learn="layer")
    assert show.pilot(measured)["proj"] == pytest.approx(evaluate(suite, alone)["accuracy"].mean())


def test_everything_but_the_pilot_and_the_filter_is_learned_with_every_seed(suite):
    options = {"epochs": 2, "pilot_epochs": 1, "layers": ["head"], "adamerging_steps": 2, "adamerging_lr": 0.05}
    rows = pd.DataFrame(measure(suite, seeds=[3, 5], **options))
    found = rows[rows["task"] == "Average"].fillna({"variant": ""})
    seeds = found.groupby(["method", "variant", "setting"])["seed"].unique().map(list).to_dict()
    once = {which for which, known in seeds.items() if known == [3]}
    assert once == {
        *((method, "", setting) for method in ("task_arithmetic", "individual")
          for setting in ("transductive", "inductive")),
        ("tint", "pilot", "transductive"),
    }  # fmt: skip
    assert all(known == [3, 5] for which, known in seeds.items() if which not in once)
    assert {variant for method, variant, _ in seeds if method == "tint"} == {"", "pilot", *VARIANTS}
    again = evaluate(suite, run_method("tint", suite, recipe="mini", epochs=2, seed=5, targets="soft", progress=False))
    own = rows[(rows["variant"] == "soft labels") & (rows["seed"] == 5) & (rows["task"] != "Average")]
    assert own["entropy"].tolist() == pytest.approx(again["entropy"].tolist())
    assert rows["quantity"].notna().sum() == 2 * 2 + 3 * len(suite.tasks) + 1  # of the first seed alone


def test_what_the_filter_keeps_adds_up(measured):
    own = measured[measured["quantity"].isin(["right if kept", "right if dropped"])]
    assert (own.groupby("task")["n"].sum() == 30).all()
    epochs = measured[measured["quantity"] == "kept"]
    assert list(epochs["epoch"]) == [0, 1] and epochs["value"].between(0, 100).all()


# ------------------------------------------------------------------------------------------------ numbers and claims


def test_numbers_are_differences_of_the_rows(rows):
    found = {name: values[0] for name, values in numbers.numbers(sample_of(rows)).items()}
    expected = {
        "tint_average": 94, "lambda_over_ta": 15, "head_over_ta": 14, "lw_over_ta": 7, "tint_over_ta": 34,
        "tint_over_lambda": 19, "tint_over_head": 20, "tint_over_lw": 27, "soft_over_tint": 0.25,
        "tint_pp_over_tint": 0.5, "tint_pp_over_lw": 27.5, "tint_pp_over_individual": -1.5,
        "held_out_tint_over_lw": 27, "held_out_loss": 2, "head_over_other_layers": 1, "share_kept": 0.125,
        "expert_right_if_kept_over_dropped": 50, "surest_average": 80,
    }  # fmt: skip
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_claims_hold_in_a_world_like_the_published_one_and_fall_with_their_numbers(rows):
    def words(data):
        known = numbers.numbers(sample_of(data))
        return {claim.id: judge.judge(claim, known).word for claim in claims.claims_of("tinting")}

    assert set(words(rows).values()) == {"holds"}
    changed = {("tint", "layer only", "transductive"): 64.0, ("tint", None, "inductive"): 69.0}
    fallen = {id for id, word in words(made_up(AVERAGES | changed)).items() if word == "does not hold"}
    assert fallen == {"tint-single-layer", "held-out-over-adamerging", "held-out-loss"}
    assert words(made_up(pilot=PILOT | {"proj": 86.5}))["head-is-best"] == "does not hold"
    assert words(made_up(pilot={"head": 86.0}))["head-is-best"] == "not run"
    assert words(made_up(kept={"digits": (97.0, 40.0, 90.0)}))["filter-drops-wrong"] == "does not hold"
    assert words(made_up(kept={"signs": KEPT["signs"]}))["filter-drops-wrong"] == "not run"


# ----------------------------------------------------------------------------------------------- tables and figures


def test_variants_go_from_nothing_to_the_experts(rows):
    frame = show.variants_text(rows)
    assert frame["average accuracy"].tolist() == [
        "60.0", "67.0", "94.0", "75.0", "74.0", "94.2", "80.0", "94.5", "96.0",
    ]  # fmt: skip
    assert frame.loc["λ alone", "gain"] == "+15.0" and frame.loc["nothing (Task Arithmetic)", "gain"] == "+0.0"


def test_tables_and_figures_have_means_over_seeds(rows):
    again = rows[rows["accuracy"].notna() & rows["method"].isin(["tint", "tint_pp"])]
    both = pd.concat([rows, again.assign(seed=1, accuracy=again["accuracy"] + 1)], ignore_index=True)
    gained = (show.variants(both) - show.variants(rows)).to_dict()
    assert {title for title, gain in gained.items() if gain == 0.5} == {
        title for title in gained if "Tint" in title or title in {title for title, _ in VARIANTS.values()}
    }
    assert set(gained.values()) == {0, 0.5} and show.settings(both).loc["Tint++"].tolist() == ["95.0", "93.0"]
    assert show.pilot(both).to_dict() == {layer: level + 0.5 for layer, level in PILOT.items()}
    assert [bar.get_width() for bar in show.single_layers(both).axes[0].patches] == [84.5, 85.5, 86.5]
    filtered = rows[rows["quantity"].isin(["kept", "agreement"])]
    both = pd.concat([rows, filtered.assign(value=filtered["value"] + 2)], ignore_index=True)
    assert show.filtering(both).axes[0].lines[0].get_xydata().tolist() == [[0, 95], [1, 96]]


def test_settings_stand_side_by_side(rows):
    frame = show.settings(rows)
    assert frame.loc["Tint++"].tolist() == ["94.5", "92.5"] and frame.loc["Individual"].tolist() == ["96.0", "95.5"]
    assert len(frame) == 5


def test_a_task_of_which_nothing_was_dropped_leaves_its_cell_open(rows):
    frame = show.kept_text(rows)
    assert frame.loc["digits"].tolist() == ["97.0", "90.0", "40.0"]
    assert frame.loc["signs"].tolist()[:2] == ["100.0", "80.0"] and pd.isna(frame.loc["signs", "right if dropped"])


def test_single_layers_draws_the_pilot_and_two_levels(rows):
    axes = show.single_layers(rows).axes[0]
    names = [text.get_text() for text in axes.get_yticklabels()]
    drawn = dict(zip(names, (bar.get_width() for bar in axes.patches), strict=True))
    assert drawn == {"head": 86.0, "projection": 85.0, "block 1, MLP out": 84.0}
    assert names[-1] == "head"  # on top
    assert [line.get_xdata()[0] for line in axes.lines] == [60.0, 96.0]


def test_what_is_learned_draws_the_table(rows):
    axes = show.what_is_learned(rows).axes[0]
    widths = [bar.get_width() for bar in axes.patches]
    assert widths == show.variants(rows)[::-1].tolist()
    (bars,) = axes.collections
    halves = [(right - left) / 2 for (left, _), (right, _) in bars.get_segments()]
    assert halves == pytest.approx(show.variants_half_widths(rows)[::-1].tolist()) and min(halves) > 0.5
    names = [text.get_text().replace("\n", " ") for text in axes.get_yticklabels()]
    assert names == show.variants(rows)[::-1].index.tolist()


def test_filtering_draws_both_shares_over_the_rounds(rows):
    axes = show.filtering(rows).axes[0]
    kept, agreement = axes.lines
    np.testing.assert_array_equal(kept.get_xydata(), [[0, 94], [1, 95]])
    np.testing.assert_array_equal(agreement.get_xydata(), [[0, 60], [1, 85]])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["kept", "both models agree"]
