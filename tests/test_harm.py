"""When does it harm? Streams are as odd as they say, one expert is bad and no other, and numbers are what rows hold."""

from __future__ import annotations

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

import adamerging_lib as am
from adamerging_lib.evaluation import predictions
from adamerging_lib.learning.adaptation import Adaptation
from adamerging_lib.merged import Merged
from adamerging_lib.methods.adamerging import split
from adamerging_lib.suite import split_indices
from adamerging_study import outcomes
from adamerging_study.gain.learn import Same
from adamerging_study.harm import EXPERTS, KEPT, LAST, OBJECTIVES, RECIPE, START, STATES, STREAMS, told
from adamerging_study.harm.learn import SKEWED, _skewed, _streams, adapted, situated
from adamerging_study.harm.measure import cells, learn
from adamerging_study.harm.numbers import auc, numbers
from adamerging_study.harm.show import cases, leads, over_situations, recipe, statistics, table
from adamerging_study.sample import Sample

ABOUT = {
    "situation": "clean", "objective": "entropy", "seed": 1, "setting": "inductive", "steps": 4, "lr": 0.1,
    "batch_size": 4, "severity": 3,
}  # fmt: skip


def streams(suite, situation, **changed):
    about = {**ABOUT, "situation": situation, **changed}
    return _streams(suite, about, Adaptation({"batch_size": 4}, seed=about["seed"], setting="inductive"))[0]


def drawn(stream):
    """Every image that one pass gives, in its order."""
    return stream._pass(0).tolist()


@pytest.mark.parametrize("situation", [name for name in STREAMS if not name.startswith("batch")])
def test_what_is_learned_from_is_neither_watched_nor_measured(suite, situation, monkeypatch):
    watched = []
    monkeypatch.setattr("adamerging_study.harm.learn.watching", lambda suite, apart, device: watched.extend(apart))
    for task, stream in zip(suite.tasks, streams(suite, situation), strict=True):
        pool = drawn(stream)
        half = set(split_indices(len(suite.test[task]))[0].tolist())
        assert len(set(pool)) == len(pool) and set(pool) < half
        apart = watched[suite.tasks.index(task)].batch(0)
        learned = suite.test[task].images[pool]
        assert not any((image == other).all() for image in apart for other in learned)


def test_one_class_comes_after_another(suite):
    for task, stream in zip(suite.tasks, streams(suite, "sorted"), strict=True):
        labels = suite.test[task].labels[drawn(stream)]
        assert int((labels.diff() != 0).sum()) == len(labels.unique()) - 1
        assert drawn(stream) == stream._pass(7).tolist()  # in every pass the same
    orders = [drawn(streams(suite, "sorted", seed=seed)[0]) for seed in range(4)]
    assert len({tuple(order) for order in orders}) > 1


def test_skew_follows_the_draw_of_dirichlet():
    """Of many images per class, the smaller α gives the fewer classes their share; all draws are possible ones."""
    labels = torch.arange(10).repeat_interleave(400)
    tops = {}
    for alpha in (0.1, 1.0, 100.0):
        shares = []
        for seed in range(20):
            found = _skewed(labels, 10, alpha, torch.Generator().manual_seed(seed))
            assert len(found) == len(set(found.tolist())) == SKEWED
            shares.append(float(torch.bincount(labels[found], minlength=10).max()) / SKEWED)
        tops[alpha] = np.mean(shares)
    assert tops[0.1] > 0.6 > tops[1.0] > 0.2 > tops[100.0] > 0.1


def test_batches_have_the_size_that_the_situation_says(suite):
    for size in (1, 4):
        fit = adapted(suite, {**ABOUT, "situation": f"batch_{size}"})
        assert fit.hyper["situation"] == f"batch_{size}" and len(fit.history) == ABOUT["steps"]
    with_one, with_four = (adapted(suite, {**ABOUT, "situation": f"batch_{n}"}).trajectory for n in (1, 4))
    assert not torch.equal(with_one, with_four)
    assert torch.equal(with_four, adapted(suite, ABOUT).trajectory)  # four is the run's own size here


def test_entropy_with_diversity_learns_nothing_from_one_image_at_a_time(suite):
    """H(p) − H(mean p) is 0 where the mean is over one image. Adam divides a rounding error by itself: not a step of
    its size in any direction is excluded, so the loss is what is looked at."""
    fit = adapted(suite, {**ABOUT, "situation": "batch_1", "objective": "diverse"})
    assert fit.history[list(suite.tasks)].abs().to_numpy().max() < 1e-5


@pytest.mark.parametrize("fault", [name for name in EXPERTS if name != "unsure"])
def test_one_expert_is_bad_and_no_other(suite, fault):
    made = situated(Same(suite), fault, 0, 3)
    differ = [
        task for task in suite.tasks
        if any(not torch.equal(made.experts[task][key], suite.experts[task][key]) for key in suite.experts[task])
    ]  # fmt: skip
    assert len(differ) == 1
    assert all(torch.equal(made.pretrained[key], suite.pretrained[key]) for key in suite.pretrained)
    again = situated(Same(suite), fault, 0, 3)
    assert all(torch.equal(made.experts[differ[0]][key], again.experts[differ[0]][key]) for key in suite.pretrained)


def test_corruptions_change_images_alone(suite):
    made = situated(Same(suite), "spatter", 0, 3)
    assert not torch.equal(made.test["alpha"].images, suite.test["alpha"].images)
    assert torch.equal(made.test["alpha"].labels, suite.test["alpha"].labels) and made.experts is suite.experts


def test_unknown_situations_are_named(suite):
    with pytest.raises(ValueError, match="situation 'fog_bank' is unknown; choose from clean, batch_1"):
        situated(Same(suite), "fog_bank", 0, 3)


def test_rows_measure_the_three_states(suite):
    losses, rows = learn(suite, {**ABOUT, "objective": "imitation"}, None)
    assert losses.shape == (4, 3) and [row["state"] for row in rows] == [s for s in STATES for _ in range(4)]
    steps = {row["state"]: row["step"] for row in rows}
    assert steps[START] == 0 and steps[LAST] == 4 and 0 <= steps[KEPT] <= 4
    short, none = learn(suite, {**ABOUT, "objective": "imitation"}, 2)
    assert none is None and np.allclose(short, losses[:2])
    same = [row for row in rows if row["state"] == {0: START, 4: LAST}.get(steps[KEPT])]
    kept = [row for row in rows if row["state"] == KEPT]
    assert not same or [row["accuracy"] for row in same] == [row["accuracy"] for row in kept]


def test_cells_cross_situations_with_objectives():
    grid = {"streams": ["clean", "sorted"], "experts": ["unsure"], "corruptions": ["spatter"], "seeds": [0, 1]}
    grid |= {
        "corruption_seeds": [5],
        "objectives": ["entropy", "diverse", "imitation"],
        "prior_in": ["sorted", "spatter"],
        "severity": 3,
        "steps": 1,
        "lr": 1,
        "batch_size": 2,
    }
    found = dict(cells(**grid, threads=1))
    assert len(found) == 3 * (3 * 2 + 1) + 2 + 1
    assert {about["seed"] for about in found.values() if about["situation"] == "spatter"} == {5}


def test_the_recipe_starts_from_tsv_m_and_learns_components_by_imitation(suite):
    about = {**ABOUT, "objective": RECIPE, "lr": 0.01}
    fit, (_, rows) = adapted(suite, about), learn(suite, about, None)
    tv = split(suite.task_vectors(), "tsv", 0.2)
    assert fit.coefficients.granularity == "component"
    streams, _ = _streams(suite, about, Adaptation({"batch_size": 4}, seed=about["seed"], setting="inductive"))
    begun = am.run_method("tsv_m", suite)
    for task, stream in zip(suite.tasks, streams, strict=True):
        batch = stream.batch(0)
        seen = replace(suite.test[task], images=batch, labels=torch.zeros(len(batch), dtype=torch.int64))
        part, models = replace(suite, test={task: seen}), (begun.state, suite.experts[task])
        scores, said = (next(predictions(part, Merged(state, "", {}, suite.tasks)))[1] for state in models)
        expected = -(said.softmax(-1) * scores.log_softmax(-1)).sum(-1).mean()
        assert fit.history[task][0] == pytest.approx(float(expected), rel=1e-4)
    begun = am.evaluate(suite, am.run_method("tsv_m", suite), setting="inductive")["accuracy"]
    assert [row["accuracy"] for row in rows if row["state"] == START][:-1] == pytest.approx(begun.tolist())
    last = Merged(tv.merge(fit.trajectory[-1], "component"), "adapted", {}, suite.tasks)
    ended = am.evaluate(suite, last, setting="inductive")["accuracy"]
    assert [row["accuracy"] for row in rows if row["state"] == LAST][:-1] == pytest.approx(ended.tolist())


def test_cells_of_the_recipe_have_its_steps_and_rate():
    grid = {"streams": ["clean", "sorted"], "experts": ["unsure"], "corruptions": ["spatter"], "seeds": [0, 1]}
    grid |= {"corruption_seeds": [0], "objectives": ["entropy"], "severity": 3, "steps": 5, "lr": 1, "batch_size": 2}
    own = [about for _, about in cells(**grid, recipe_in=["sorted"], recipe_steps=7, recipe_lr=0.5)]
    own = [(about["situation"], about["seed"], about["steps"], about["lr"]) for about in own if about["steps"] != 5]
    assert own == [("sorted", 0, 7, 0.5), ("sorted", 1, 7, 0.5)]


def made_up(gains, start=50):
    """Rows of (situation, objective) → points of the last and of the kept state above a start, two seeds."""
    rows = []
    begun = set()
    for (situation, objective), (last, kept) in gains.items():
        states = [(START, start)] * (situation not in begun) + [(LAST, start + last), (KEPT, start + kept)]
        begun.add(situation)
        for state, accuracy in states:
            for seed in (0, 1):
                about = {
                    "method": "adapted",
                    "condition": "clean",
                    "group": "all",
                    "setting": "inductive",
                    "seed": seed,
                }
                about |= {"situation": situation, "state": state, "accuracy": float(accuracy)}
                about |= {"objective": objective} if state != START else {}
                right = outcomes.pack(np.arange(200) < 2 * accuracy)
                rows.append({**about, "task": "one", "n": 200, outcomes.FIELD: right})
                rows.append({**about, "task": "Average", "n": 200, "expected_lead": float(last) + 1})
    return pd.DataFrame(rows)


def test_numbers_are_gains_their_worst_and_what_is_kept():
    gains = {(s, o): (10, 9) for s in ("clean", "sorted") for o in OBJECTIVES}
    gains |= {("sorted", "diverse"): (-8, 0), ("sorted", "imitation"): (-2, -1)}
    found = {name: float(values[0]) for name, values in numbers(Sample(made_up(gains), draws=20)).items()}
    assert found["sorted_diverse_last"] == -8 and found["sorted_diverse_kept"] == 0
    assert found["worst_last"] == -8 and found["worst_kept"] == -1 and found["worst_entropy_kept"] == 9
    assert found["share_kept_entropy"] == pytest.approx(90) and found["diverse_over_entropy_sorted"] == -18
    assert (found["cases"], found["harmed_last"], found["harmed_kept"], found["harmed_last_entropy"]) == (8, 2, 1, 0)
    assert np.isnan(found["unsure_entropy_last"])
    assert (found["fits"], found["fits_harmed_last"], found["fits_worst_kept"]) == (16, 4, -1)


def test_the_recipe_has_a_start_of_its_own_and_numbers_of_its_own():
    plain = made_up({("clean", "entropy"): (6, 5), ("sorted", "entropy"): (2, 2)})
    own = made_up({("clean", RECIPE): (20, 19), ("sorted", RECIPE): (-3, 0)}, start=60)
    rows = pd.concat([plain, own.assign(objective=RECIPE)], ignore_index=True)
    bare, found = ({k: v[0] for k, v in numbers(Sample(part, draws=20)).items()} for part in (plain, rows))
    assert {name: value for name, value in found.items() if "recipe" not in name} == pytest.approx(
        {name: value for name, value in bare.items() if "recipe" not in name}, nan_ok=True
    )
    assert found["clean_recipe_last"] == 20 and found["share_kept_recipe"] == 95
    assert (found["worst_recipe_last"], found["harmed_last_recipe"], found["harmed_kept_recipe"]) == (-3, 1, 0)
    assert (found["cases_recipe"], found["fits_recipe"], found["fits_harmed_last_recipe"]) == (2, 4, 2)
    assert found["fits_worst_last_recipe"] == -3
    text = recipe(rows)
    assert text.index.tolist() == [told("clean"), told("sorted")] and text["without guard"].str[:5].tolist() == [
        "+20.0",
        "-3.0 ",
    ]
    assert table(rows).equals(table(plain)) and recipe(plain).empty


def test_tables_and_figures_say_the_same():
    rows = made_up({("clean", "entropy"): (6, 5), ("skew_0.1", "entropy"): (-3, 0)})
    frame = cases(rows).set_index(["situation", "state"])["gain"]
    assert frame["clean", LAST] == 6 and frame["skew_0.1", KEPT] == 0
    text = table(rows)
    assert text.index.tolist() == [told("clean"), told("skew_0.1")]
    assert text.iloc[1, 0].startswith("-3.0") and text.columns.tolist() == [
        "entropy, without guard",
        "entropy, with guard",
    ]
    found = leads(rows).set_index(["situation", "seed"])
    assert found.loc[("clean", 0), ["beliefs", "real"]].tolist() == [7, 6]


def with_statistics(told, objective="entropy"):
    """Rows as of `made_up`: situation → points gained, and the changes of agreement, variety, entropy and drift."""
    rows = made_up({(situation, objective): (gain, gain) for situation, (gain, *_) in told.items()})
    names = ["watched_agreement", "watched_variety", "watched_entropy", "drift"]
    for situation, (_, *changes) in told.items():
        own = (rows["task"] == "Average") & (rows["situation"] == situation)
        rows.loc[own, names] = [0.5, 1.0, 2.0, 0.0]
        last = own & (rows["state"] == LAST)
        rows.loc[last, names] += np.array(changes)
    return rows


def test_statistics_are_told_by_how_they_rank_harm_and_by_what_they_let_through():
    rows = with_statistics({
        "clean": (10, 0.2, 0.1, -0.5, 0.1),
        "batch_1": (6, -0.1, 0.1, -0.5, 0.1),  # agreement speaks against a gain
        "sorted": (-4, -0.3, 0.2, -0.9, 0.3),  # only beliefs, agreement and drift speak against this harm
    })  # fmt: skip
    found = {name: values[0] for name, values in numbers(Sample(rows)).items()}
    assert (found["compared"], found["compared_harmed"]) == (6, 2)
    assert found["auc_agreement"] == found["auc_beliefs"] == found["auc_drift"] == 1
    assert found["auc_variety"] == found["auc_entropy"] == 0
    assert (found["veto_agreement_harmed"], found["veto_agreement_share"]) == (0, pytest.approx(62.5))
    assert (found["veto_beliefs_harmed"], found["veto_beliefs_share"]) == (0, 100)
    assert (found["veto_entropy_harmed"], found["veto_entropy_share"]) == (2, 100)
    assert (found["veto_both_harmed"], found["veto_both_share"]) == (0, 100)
    text = statistics(rows)
    assert text.loc["always"].tolist() == ["–", "2", "100", "100"] and text["AUC"].tolist()[1:] == [
        "1.00", "1.00", "0.00", "0.00", "1.00", "–",
    ]  # fmt: skip
    assert text.loc["agreement with the experts did not fall"].tolist()[1:] == ["0", "62", "62"]
    assert statistics(made_up({("clean", "entropy"): (6, 6)})).loc["always"].tolist() == ["–"] * 4


def test_two_statistics_together_reject_what_either_rejects():
    rows = with_statistics({
        "clean": (10, 0.2, -0.1, -0.5, 0.1),  # variety speaks against a gain
        "batch_1": (6, 0.1, 0.1, -0.5, 0.1),
        "sorted": (-4, -0.3, 0.2, -0.9, 0.3),  # beliefs alone speak against this harm
        "skew_1": (-3, 0.3, -0.2, -0.9, 0.3),  # variety alone against this one, once its lead is expected
    })  # fmt: skip
    rows.loc[(rows["situation"] == "skew_1") & (rows["state"] == LAST), "expected_lead"] = 5.0
    found = {name: values[0] for name, values in numbers(Sample(rows)).items()}
    assert (found["veto_beliefs_harmed"], found["veto_beliefs_share"]) == (2, 100)
    assert (found["veto_variety_harmed"], found["veto_variety_share"]) == (2, pytest.approx(37.5))
    assert (found["veto_both_harmed"], found["veto_both_share"]) == (0, pytest.approx(37.5))
    assert found["veto_both_share_entropy"] == found["veto_both_share"] and np.isnan(found["veto_both_share_diverse"])


def test_fits_that_were_kept_before_the_statistics_are_not_compared():
    both = {"clean": (10, 0.2, 0.1, -0.5, 0.1), "sorted": (-4, -0.3, 0.2, -0.9, 0.3)}
    rows = pd.concat([with_statistics(both), made_up({("batch_4", "entropy"): (-9, 0)})], ignore_index=True)
    found = {name: values[0] for name, values in numbers(Sample(rows)).items()}
    assert (found["fits"], found["compared"], found["compared_harmed"]) == (6, 4, 2)
    bare = {name: values[0] for name, values in numbers(Sample(made_up({("clean", "entropy"): (6, 6)}))).items()}
    assert bare["compared"] == 0 and all(np.isnan(bare[f"auc_{name}"]) for name in ("beliefs", "drift"))
    assert np.isnan(bare["veto_entropy_harmed"])


def test_ranks_count_ties_by_half():
    assert auc(np.array([1.0, 1.0, 3.0]), np.array([True, False, False])) == 0.75
    assert np.isnan(auc(np.array([1.0]), np.array([True])))


def test_a_case_far_from_all_others_stands_at_the_edge_as_a_number():
    """And keys of the legend have the colour of no panel."""
    gains = {(f"batch_{n}", o): (n, n) for n in range(6) for o in ("entropy", "imitation")}
    figure = over_situations(made_up(gains | {("clean", "imitation"): (45, 40), ("clean", "entropy"): (-30, 1)}))
    entropy, imitation = figure.axes
    assert [text.get_text() for text in imitation.texts] == ["+45 →", "+40 →"]
    assert [text.get_text() for text in entropy.texts] == ["← −30"]
    assert imitation.get_xlim()[1] < 20
    assert {line.get_color() for line in figure.legends[0].legend_handles} == {"#4A4A4A"}
    plt.close(figure)
