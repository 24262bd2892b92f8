"""The doctor before the merge: every rule on experts made for it, the report's layout, and what it tells to do."""

from __future__ import annotations

import json
import re
import shlex

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import adamerging_lib as am
from adamerging_lib import state
from adamerging_lib.cli import main
from adamerging_lib.doctor import advice, findings, thresholds
from adamerging_lib.methods.registry import find, methods
from adamerging_lib.published.competitions import BOUNDS
from adamerging_study import evidence

WIDTH = 100


def base(seed=0):
    """Matrices enough that random directions are nearly at right angles, and a vector."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"block.0.weight": (64, 96), "block.1.weight": (96, 64), "norm.weight": (64,)}
    return {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}


def expert(pretrained, seed, length=0.05, rank=4):
    """θ0 and a change of low rank in its matrices, ``length`` times as long as they are."""
    generator = torch.Generator().manual_seed(100 + seed)
    tuned = dict(pretrained)
    for key, t in pretrained.items():
        if t.dim() == 2:
            m, n = t.shape
            change = torch.randn(m, rank, generator=generator) @ torch.randn(rank, n, generator=generator)
            tuned[key] = t + change * (length * t.norm() / change.norm())
    return tuned


def towards(pretrained, tuned, share):
    return {key: torch.lerp(t, tuned[key], share) for key, t in pretrained.items()}


def codes(report, level=None):
    return [f.code for f in report.findings if f.level == (level or f.level) and f.level != findings.NOTE]


@pytest.fixture(scope="module")
def honest():
    return base(), {name: expert(base(), seed) for seed, name in enumerate(["cars", "maths", "signs", "law"])}


def test_honest_experts_are_left_alone(honest):
    report = am.check(*honest)
    assert codes(report) == [] and report.exit_code == 0 and report.verdict == "merge"
    assert report.experts["relative"].tolist() == pytest.approx([0.05] * 4, rel=0.02)
    assert report.experts["rank"].between(2, 5).all() and (report.experts["noise"] < thresholds.NOISE).all()
    assert report.cosines.loc["cars", "cars"] == pytest.approx(1)


def test_two_honest_experts_are_enough_and_one_is_not(honest):
    pretrained, experts = honest
    assert am.check(pretrained, {name: experts[name] for name in ("cars", "law")}).advice.method is not None
    alone = am.check(pretrained, {"cars": experts["cars"]})
    assert codes(alone) == ["alone"] and alone.exit_code == 1
    assert alone.advice.method is None and "left: 'cars'" in alone.advice.why


def test_stretched(honest):
    pretrained, experts = honest
    report = am.check(pretrained, {**experts, "law": towards(pretrained, experts["law"], 3)})
    assert codes(report) == ["far"] and report.findings[0].experts == ("law",) and report.exit_code == 1
    assert report.experts.loc["law", "beside_others"] == pytest.approx(3, rel=0.05)


@pytest.mark.parametrize(("share", "code"), [(0.45, "short"), (0.2, "short"), (0.05, "still")])
def test_short(honest, share, code):
    pretrained, experts = honest
    report = am.check(pretrained, {**experts, "law": towards(pretrained, experts["law"], share)})
    assert codes(report) == [code] and report.findings[0].experts == ("law",)


def test_of_three_a_far_one_makes_no_other_short(honest):
    pretrained, experts = honest
    three = {"cars": experts["cars"], "maths": experts["maths"], "law": towards(pretrained, experts["law"], 10)}
    assert codes(am.check(pretrained, three)) == ["far"]


def test_of_two_nobody_knows_which_is_wrong(honest):
    pretrained, experts = honest
    report = am.check(pretrained, {"cars": experts["cars"], "law": towards(pretrained, experts["law"], 3)})
    assert codes(report) == ["uneven"] and set(report.findings[0].experts) == {"cars", "law"}


def test_untrained_and_rounded(honest):
    pretrained, experts = honest
    rounded = {key: t.bfloat16().float() for key, t in pretrained.items()}
    report = am.check(pretrained, {**experts, "none": pretrained, "cast": rounded})
    assert sorted(codes(report)) == ["rounded", "untrained"] and report.exit_code == 1
    assert report.advice.without == ("none", "cast") and report.advice.method is not None


def test_copies(honest):
    pretrained, experts = honest
    same = am.check(pretrained, {**experts, "again": dict(experts["law"])})
    assert codes(same) == ["same"] and same.exit_code == 2 and same.advice.without == ("again",)
    noisy = {key: t + 0.01 * (t - pretrained[key]) * torch.randn(t.shape) for key, t in experts["law"].items()}
    near = am.check(pretrained, {**experts, "again": noisy})
    assert codes(near) == ["copy"] and near.exit_code == 1 and near.findings[0].experts == ("law", "again")
    opposed = am.check(pretrained, {**experts, "undone": towards(pretrained, experts["law"], -1)})
    assert codes(opposed) == ["opposed"] and set(opposed.findings[0].experts) == {"law", "undone"}


def test_another_base(honest):
    pretrained, experts = honest
    stranger = expert(base(7), 9)
    report = am.check(pretrained, {**experts, "stranger": stranger})
    assert codes(report) == ["foreign"] and report.findings[0].experts == ("stranger",) and report.exit_code == 2
    assert report.advice.without == ("stranger",)
    wrong = am.check(base(7), experts)
    assert codes(wrong) == ["foreign_base"] and wrong.findings[0].experts == () and wrong.advice.method is None


def test_a_matrix_made_anew_is_named(honest):
    pretrained, experts = honest
    pretrained = {**pretrained, "head.weight": torch.randn(8, 64)}
    experts = {name: {**e, "head.weight": pretrained["head.weight"].clone()} for name, e in experts.items()}
    experts["law"]["head.weight"] = torch.randn(8, 64)
    report = am.check(pretrained, experts)
    found = next(finding for finding in report.findings if finding.code == "rewritten")
    assert found.experts == ("law",) and "head.weight" in found.message and "--drop" in found.mend


@pytest.mark.parametrize("others", [("maths",), ("maths", "signs"), ("maths", "signs", "law")])
def test_base_and_expert_exchanged(honest, others):
    pretrained, experts = honest
    report = am.check(experts["cars"], {"cars": pretrained, **{name: experts[name] for name in others}})
    assert codes(report, findings.ERROR) == ["exchanged"] and report.findings[0].experts == ("cars",)


def test_a_shared_way_is_told_from_an_exchange(honest):
    pretrained, experts = honest
    common = expert(pretrained, 50, length=0.08)
    moved = {name: {key: t + common[key] - pretrained[key] for key, t in e.items()} for name, e in experts.items()}
    assert codes(am.check(pretrained, moved)) == ["shared"]


def test_what_is_not_finite_is_named_and_the_rest_is_measured(honest):
    pretrained, experts = honest
    broken = {key: t.clone() for key, t in experts["law"].items()}
    broken["norm.weight"][3] = float("nan")
    report = am.check(pretrained, {**experts, "law": broken})
    assert codes(report) == ["not_finite"] and report.findings[0].experts == ("law",) and report.exit_code == 2
    assert report.experts["relative"].notna().all() and report.advice.without == ("law",)
    own = {**pretrained, "norm.weight": broken["norm.weight"]}
    at_base = am.check(own, experts)
    assert codes(at_base) == ["not_finite"] and at_base.findings[0].experts == () and at_base.advice.method is None


def test_masks_ties_buffers_and_statistics_are_told(honest):
    pretrained, experts = honest
    mask = torch.full((4, 4), float("-inf")).triu(1)
    more = {
        "attn.mask": mask, "tied.weight": pretrained["block.0.weight"], "bn.running_mean": torch.zeros(4),
        "bn.running_var": torch.ones(4), "position_ids": torch.arange(4),
    }  # fmt: skip
    tuned = {
        name: {**e, **more, "tied.weight": e["block.0.weight"], "bn.running_var": torch.rand(4)}
        for name, e in experts.items()
    }
    report = am.check({**pretrained, **more}, tuned)
    assert codes(report) == ["statistics"] and report.exit_code == 1
    assert {f.code for f in report.findings} >= {"tied", "masks", "statistics"}
    assert report.tensors["kind"].to_dict() == {
        "block.0.weight": "merged", "block.1.weight": "merged", "norm.weight": "merged", "attn.mask": "copied",
        "tied.weight": "tied", "bn.running_mean": "statistics", "bn.running_var": "statistics",
        "position_ids": "copied",
    }  # fmt: skip


def test_quantised_and_coarse(honest):
    pretrained, experts = honest
    scale = experts["law"]["block.0.weight"].abs().amax(1, keepdim=True) / 127
    codes_of = (experts["law"]["block.0.weight"] / scale).round().to(torch.int8)
    packed = {**experts["law"], "block.0.weight": codes_of, "block.0.weight_scale": scale.squeeze(1)}
    report = am.check(pretrained, {**experts, "law": packed})
    assert codes(report) == ["quantised"] and report.findings[0].experts == ("law",) and report.exit_code == 2

    def four_bits(t):
        scale = t.abs().amax(-1, keepdim=True) / 7
        return (t / scale).round() * scale if t.dim() == 2 else t

    widened = {key: four_bits(t) for key, t in experts["law"].items()}
    assert "coarse" in codes(am.check(pretrained, {**experts, "law": widened}))
    half = {name: {key: t.bfloat16() for key, t in e.items()} for name, e in experts.items()}
    assert "coarse" not in codes(am.check({key: t.bfloat16() for key, t in pretrained.items()}, half))


def test_without_a_base(honest):
    pretrained, experts = honest
    report = am.check(None, experts)
    assert codes(report) == ["no_base"] and report.exit_code == 1 and report.pretrained is None
    assert report.cosines.empty and report.experts["apart"].notna().all()
    found = am.check(None, {**experts, "theta": pretrained})
    assert codes(found) == ["no_base"] and found.findings[0].experts == ("theta",)
    twice = am.check(None, {"cars": experts["cars"], "again": dict(experts["cars"]), "law": experts["law"]})
    assert codes(twice) == ["same", "no_base"] and twice.exit_code == 2
    odd = am.check(None, {**experts, "stranger": expert(base(7), 9)})
    assert "foreign" in codes(odd) and odd.findings[0].experts == ("stranger",)
    first = am.check(None, {"stranger": expert(base(7), 9), **experts})
    assert first.findings[0].experts == ("stranger",)


@given(st.permutations(["cars", "maths", "signs", "law"]), st.floats(0.2, 5))
@settings(max_examples=10, deadline=None)
def test_neither_order_nor_scale_of_all_changes_what_is_found(order, factor):
    pretrained = base()
    experts = {name: expert(pretrained, seed) for seed, name in enumerate(["cars", "maths", "signs", "law"])}
    experts["law"] = towards(pretrained, experts["law"], 3)
    scaled = {name: {key: factor * t for key, t in experts[name].items()} for name in order}
    report = am.check({key: factor * t for key, t in pretrained.items()}, scaled)
    assert codes(report) == ["far"] and report.findings[0].experts == ("law",)
    assert report.experts.index.tolist() == order


NOTHING = torch.zeros(0, 4)


@pytest.mark.parametrize(
    ("pretrained", "experts", "code"),
    [
        ({}, {"a": {"w": torch.ones(2)}}, 2),
        ({"w": torch.ones(2)}, {"a": {}, "b": {"w": torch.ones(2)}}, 2),
        ({"w": torch.ones(2)}, {"a": {"w": 3}, "b": {"w": torch.ones(2)}}, 2),
        ({"n": torch.arange(3)}, {"a": {"n": torch.arange(3)}, "b": {"n": torch.arange(3)}}, 2),
        ({"w": NOTHING}, {"a": {"w": NOTHING}, "b": {"w": NOTHING}}, 2),
        ({"w": torch.ones(2)}, {"a": {"w": NOTHING}, "b": {"w": torch.ones(2)}}, 2),
        ({"w": torch.ones(2, dtype=torch.complex64)}, {"a": {"w": torch.ones(2)}}, 2),
        ({"w": torch.full((4,), 3e38)}, {"a": {"w": torch.full((4,), -3e38)}, "b": {"w": torch.ones(4)}}, 2),
        ({"w": torch.zeros(4)}, {"a": {"w": torch.ones(4)}, "b": {"w": torch.tensor([1.0, -1, 1, -1])}}, 1),
        ({"w": torch.zeros(4)}, {"a": {"w": torch.zeros(4)}, "b": {"w": torch.zeros(4)}}, 1),
        ({"w": torch.tensor(1.0)}, {"a": {"w": torch.tensor(1.1)}, "b": {"w": torch.tensor(1.2)}}, 1),
        ({"w": torch.ones(4)}, {"a": "gone.safetensors", "b": {"w": torch.ones(4)}}, 2),
        (None, {"a": {"w": torch.ones(4)}}, 1),
    ],
)
def test_odd_models_are_told_never_raised(pretrained, experts, code):
    report = am.check(pretrained, experts)
    assert report.exit_code == code and report.findings
    assert str(report) and json.loads(report.json())["exit_code"] == code


def test_no_experts_and_two_of_one_name(honest):
    pretrained, experts = honest
    with pytest.raises(ValueError, match="no experts"):
        am.check(pretrained, {})
    with pytest.raises(ValueError, match="two experts are named 'a'"):
        am.check(pretrained, [("a", experts["law"]), ("a", experts["cars"])])


def test_inputs_are_left_alone(honest):
    pretrained, experts = honest
    before = state.fingerprint(pretrained), [state.fingerprint(e) for e in experts.values()]
    generator = torch.get_rng_state()
    am.check(pretrained, experts)
    assert (state.fingerprint(pretrained), [state.fingerprint(e) for e in experts.values()]) == before
    assert torch.equal(torch.get_rng_state(), generator)


# ------------------------------------------------------------------------------------------------ what is said and done


@pytest.fixture
def folder(honest, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my models").mkdir()
    pretrained, experts = honest
    state.save("my models/base.safetensors", pretrained)
    for name, expert_ in experts.items():
        state.save(f"my models/{name}'s.safetensors", expert_)
    return tmp_path


def call(*names, **more):
    given = {name: f"my models/{name}'s.safetensors" for name in names} | more
    pairs = [text for name, path in given.items() for text in ("--expert", f"{name}={path}")]
    return ["check", "--pretrained", "my models/base.safetensors", *pairs]


def advised(text):
    """The command that a report ends with, as a shell would read it."""
    found = re.search(r"^  adamerging (?:.*\\\n)*.*$", text, re.MULTILINE)
    return shlex.split(found[0].replace("\\\n", " "))[1:]


def test_the_command_that_is_printed_runs_as_it_stands(folder, capsys):
    assert main(call("cars", "law")) == 0
    command = advised(capsys.readouterr().out)
    assert main(command) == 0 and (folder / "merged.safetensors").is_file()
    capsys.readouterr()
    assert main(call("cars", "law")) == 0  # merged.safetensors is there now
    assert advised(capsys.readouterr().out)[-1] == "merged-2.safetensors"


def test_the_command_after_an_exchange_finds_nothing_wrong(folder, capsys):
    given = call("law", "signs", cars="my models/base.safetensors")
    given[2] = "my models/cars's.safetensors"
    assert main(given) == 2
    assert main(advised(capsys.readouterr().out)) == 0


def test_every_line_fits_a_terminal(folder, capsys):
    state.save("long.safetensors", towards(base(), expert(base(), 1), 5))
    state.save("none.safetensors", base())
    more = {"long": "long.safetensors", "none": "none.safetensors", "again": "my models/law's.safetensors"}
    assert main(call("cars", "law", **more)) == 2
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if len(line) > WIDTH] == []
    assert "These cannot be merged" in out and "Warnings" in out
    assert "leave out 'none', 'again'" in " ".join(out.split())


def test_json_has_the_documented_layout(folder, capsys):
    assert main([*call("cars", "law", none="my models/base.safetensors"), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    documented = am.check(base(), {"a": expert(base(), 0)}).json.__doc__
    assert all(f"``{key}``" in documented for key in told)
    assert all(f"``{key}``" in documented for row in told["experts"].values() for key in row)
    assert all(f"``{key}``" in documented for row in told["findings"] for key in row)
    assert all(f"``{key}``" in documented for key in told["advice"])
    assert (told["schema"], told["verdict"], told["exit_code"]) == (1, "merge with care", 1)
    assert told["experts"]["none"]["norm"] == 0 and told["experts"]["none"]["rank"] is None
    assert told["findings"][0]["experts"] == ["none"] and told["advice"]["without"] == ["none"]
    assert told["cosines"]["cars"]["law"] == pytest.approx(told["cosines"]["law"]["cars"])


def test_a_file_that_cannot_be_read_is_found_among_those_that_can(folder, capsys):
    whole = (folder / "my models/law's.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(whole[:-100])
    assert main(call("cars", "signs", cut="cut.safetensors", gone="gone.safetensors")) == 2
    out = " ".join(capsys.readouterr().out.split())
    assert "cut.safetensors" in out and "fetch it again" in out and "no checkpoint at gone.safetensors" in out
    assert main(advised_of(call("cars", "signs", cut="cut.safetensors"), capsys)) == 0


def advised_of(command, capsys):
    main(command)
    return advised(capsys.readouterr().out)


def test_merge_says_what_check_says(folder, capsys):
    state.save("long.safetensors", towards(base(), expert(base(), 1), 5))
    files = call("cars", "signs", long="long.safetensors")[1:]
    assert main(["check", *files]) == 1
    (told,) = [str(f) for f in am.check(base(), {
        "cars": expert(base(), 0), "signs": expert(base(), 2), "long": towards(base(), expert(base(), 1), 5),
    }).findings]  # fmt: skip
    capsys.readouterr()
    assert main(["merge", "--method", "task_arithmetic", *files, "--out", "m.safetensors"]) == 0
    assert f"warning: {told}" in capsys.readouterr().err


def test_merge_refuses_equal_weights_in_files_that_differ(folder, capsys):
    state.save("again.safetensors", expert(base(), 3), {"note": "another header"})
    files = call("cars", "law", again="again.safetensors")[1:]
    assert main(["merge", "--method", "ties", *files, "--out", "m.safetensors"]) == 2
    assert "'law' and 'again' have the same content" in capsys.readouterr().err


# ----------------------------------------------------------------------------------------------------- evidence, advice


def test_the_shipped_evidence_is_that_of_the_records():
    told = "run python -m adamerging_study.evidence"
    pd.testing.assert_frame_equal(advice.evidence(), evidence.evidence(), obj=told)


def test_advice_follows_the_evidence(honest):
    pretrained, experts = honest
    known = advice.evidence()
    free = [id for id in methods().index if id not in BOUNDS and (m := find(id)).needs == "nothing"
            and m.gives == "one model for all tasks"]  # fmt: skip
    clean = known[(known["case"] == advice.CLEAN) & known["method"].isin(free)]
    wide = clean.pivot(index="method", columns="world", values="accuracy").dropna()  # measured in every world
    assert am.check(pretrained, experts).advice.method == wide.mean(axis=1).idxmax()
    long = {**experts, "law": towards(pretrained, experts["law"], 3)}
    far = known[(known["case"] == advice.STRETCHED) & known["method"].isin(free)].groupby("method")["accuracy"].mean()
    assert am.check(pretrained, long).advice.method == far.idxmax()


def test_a_method_measured_in_an_easy_world_only_is_not_advised(honest, monkeypatch):
    pretrained, experts = honest
    known = advice.evidence()
    before = am.check(pretrained, experts).advice.method
    easy = pd.DataFrame([{"world": "text", "case": advice.CLEAN, "method": "lines", "accuracy": 99.9}])
    others = known[(known["method"] != "lines") | (known["case"] != advice.CLEAN)]
    monkeypatch.setattr(advice, "evidence", lambda: pd.concat([others, easy], ignore_index=True))
    assert am.check(pretrained, experts).advice.method == before


def test_advice_for_a_stretched_expert_follows_the_evidence_of_stretched_ones(honest, monkeypatch):
    """The shipped evidence names one method in both cases; here it names two, so that each is read where it counts."""
    pretrained, experts = honest
    told = advice.evidence()
    swapped = {(advice.CLEAN, "ties"): 99.0, (advice.STRETCHED, "pcb"): 99.0}
    rows = zip(told["case"], told["method"], told["accuracy"], strict=True)
    told = told.assign(accuracy=[swapped.get((case, method), accuracy) for case, method, accuracy in rows])
    monkeypatch.setattr(advice, "evidence", lambda: told)
    assert am.check(pretrained, experts).advice.method == "ties"
    long = {**experts, "law": towards(pretrained, experts["law"], 3)}
    assert am.check(pretrained, long).advice.method == "pcb"


def test_methods_on_matrices_are_not_advised_for_convolutions():
    pretrained = {"conv.weight": torch.randn(16, 8, 3, 3), "fc.weight": torch.randn(4, 16)}
    experts = {name: {key: t + 0.05 * torch.randn(t.shape) for key, t in pretrained.items()} for name in "ab"}
    told = am.check(pretrained, experts).advice
    assert told.method not in advice.SPECTRAL and "convolutions" in told.why


def test_spectral_methods_are_those_that_average_vectors():
    """What `SPECTRAL` says, tried: a vector's change comes out as a multiple of the mean, whatever its entries are."""
    pretrained = {"w.weight": torch.randn(8, 8), "v": torch.zeros(6)}
    experts = {"a": {**pretrained, "v": torch.tensor([1.0, 0, 0, 0, 2, -3])},
               "b": {**pretrained, "v": torch.tensor([0.0, 1, 0, 0, -1, -3])}}  # fmt: skip
    tv = am.TaskVectors.from_state_dicts(pretrained, experts)
    mean = tv.vectors["v"].mean(0)
    for id in advice.SPECTRAL:
        merged = am.merge(id, tv).state_dict()["v"]
        torch.testing.assert_close(merged / merged.norm(), mean / mean.norm(), msg=id)
