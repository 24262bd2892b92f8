"""The claims engine, and the committed claims: every verdict is as the page says, and every page exists."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from adamerging_lib import records
from adamerging_lib.runtime.environment import environment
from adamerging_study import claims, verdicts
from adamerging_study.book import comparisons, directives, roles

ROOT = Path(__file__).resolve().parents[1]
ROWS = [
    {"method": "a", "condition": "clean", "task": "x", "accuracy": 10.0},
    {"method": "a", "condition": "clean", "task": "Average", "accuracy": 20.0},
    {"method": "b", "condition": "clean", "task": "Average", "accuracy": 30.0},
    {"method": "b", "condition": "fog", "task": "Average", "accuracy": 5.0, "severity": 3},
    {"quantity": "spearman", "value": 0.87},
]


@pytest.mark.parametrize(
    "expression, value",
    [
        ("mean('accuracy', method='b', condition='clean') - mean('accuracy', method='a')", 10.0),
        ("mean('accuracy', method='a', task='x')", 10.0),
        ("mean('accuracy', condition=['clean', 'fog'])", 55 / 3),
        ("most('accuracy', severity=None) - least('accuracy')", 25.0),
        ("mean('value', quantity='spearman')", 0.87),
        ("count('accuracy', condition='clean')", 2.0),
        ("average('b') - average('b', 'fog')", 25.0),
        ("max(1, 2) + abs(-3)", 5.0),
        ("mean('accuracy', method='c')", math.nan),
        ("max(1, mean('accuracy', method='c'))", math.nan),
        ("1 / (mean('value') - 0.87)", math.nan),
    ],
)
def test_expressions(expression, value):
    assert claims.evaluate(expression, ROWS) == pytest.approx(value, nan_ok=True)


@pytest.mark.parametrize("expression", ["mean(", "open('x')", "__import__('os')", "mean.__class__", "unknown + 1"])
def test_expressions_that_are_none(expression):
    with pytest.raises(ValueError, match="is no expression over a record"):
        claims.evaluate(expression, ROWS)


CLAIM = {"id": "one", "claim": "c", "where": "w", "record": "r", "value": "1", "page": "p", "at_least": 0}


@pytest.mark.parametrize(
    "change, message",
    [
        ({"vlaue": 1}, "'one' has unknown fields .'vlaue'"),
        ({"page": None}, "'one' lacks .'page'"),
        ({"at_least": None}, "'one' says neither at_least nor at_most"),
    ],
)
def test_claims_that_are_refused(tmp_path, change, message):
    path = tmp_path / "claims.yml"
    entry = {key: value for key, value in {**CLAIM, **change}.items() if value is not None}
    path.write_text(yaml.safe_dump([entry]))
    with pytest.raises(ValueError, match=message):
        claims.read(path)
    path.write_text(yaml.safe_dump([CLAIM, CLAIM]))
    with pytest.raises(ValueError, match="two claims are called 'one'"):
        claims.read(path)


def test_ranges_in_words(tmp_path):
    path = tmp_path / "claims.yml"
    ranges = [{"at_least": 1}, {"at_most": 2.5}, {"at_least": 1, "at_most": 2}]
    entries = [{**CLAIM, "id": str(i), "at_least": None, **r} for i, r in enumerate(ranges)]
    path.write_text(yaml.safe_dump([{k: v for k, v in e.items() if v is not None} for e in entries]))
    assert [claim.required for claim in claims.read(path)] == ["≥ 1", "≤ 2.5", "1 to 2"]


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A checkout with one claim, one record, and a variant of it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(claims.places, "committed", lambda: tmp_path / "results")
    monkeypatch.setenv("ADAMERGING_RESULTS", str(tmp_path / "fresh"))
    text = "mean('accuracy', method='b', condition='clean')"
    Path("claims.yml").write_text(
        yaml.safe_dump([{**CLAIM, "where": "Paper, Table 1", "record": "exp", "value": text}])
    )
    for folder, shift in (("results/mini", 0), ("book/runs/long/exp/mini", 1.5)):
        rows = [{**row, "accuracy": row["accuracy"] + shift} if "accuracy" in row else row for row in ROWS]
        head = ("exp", "mini", {"steps": 1}, None, rows, [0], "2026-01-01T00:00:00", 7.0)
        record = records.new(*head, environment=environment())
        records.write(record, tmp_path / folder / "exp.json")
    return tmp_path


def test_verdict_and_its_page(world):
    (claim,) = claims.read()
    assert claims.verdict(claim, "mini").word == verdicts.HOLDS
    assert claims.profiles([claim]) == ["mini"]
    text = directives.claims_text()
    assert "## Paper" in text and "c (Table 1)" in text and "{bdg-success}`holds`<br>30.0" in text
    assert directives.claims_count_text() == "* `mini`: of 1 claims, 1 {bdg-success}`holds`\n"


def test_failures_are_shown_with_their_reason(world):
    entry = yaml.safe_load(Path("claims.yml").read_text())[0] | {"at_least": 99, "why": {"mini": "too small"}}
    missing = {**entry, "id": "two", "record": "other"}
    Path("claims.yml").write_text(yaml.safe_dump([entry, missing]))
    text = directives.claims_text()
    assert "{bdg-danger}`does not hold`" in text and "* **1, mini**: too small" in text
    assert "{bdg-secondary}`not run`" in text and "**2, mini**" not in text


def test_a_fresh_record_goes_first(world):
    record = records.read(world / "results/mini/exp.json")
    record["rows"] = [{**ROWS[2], "accuracy": -5.0}]
    records.write(record, world / "fresh/mini/exp.json")
    assert claims.verdict(claims.read()[0], "mini").word == verdicts.FAILS


def test_variant_beside_default(world):
    text = comparisons.comparison_text("exp", "long")
    assert "| b | fog | 3 | 5.0 | 6.5 | +1.5 |" in text and "| a | clean | – | 20.0 |" in text
    assert comparisons.comparison_text("exp", "other") == ""


def test_claims_of_several_worlds_side_by_side(world):
    record = records.read(world / "results/mini/exp.json")
    put = world / "book/runs/tiny/exp/tiny/exp.json"
    records.write(record | {"profile": "tiny"}, put)
    entry = yaml.safe_load(Path("claims.yml").read_text())[0]
    Path("claims.yml").write_text(yaml.safe_dump([entry, {**entry, "id": "two", "record": "other"}]))
    assert comparisons.claims_beside_text("mini", "tiny") == (
        "Of 1 claims that were measured on each, 1 have the same verdict.\n"
    )
    put.unlink()
    records.write(record | {"profile": "tiny", "rows": [{**row, "accuracy": -5.0} for row in ROWS[:4]]}, put)
    text = comparisons.claims_beside_text("mini", "tiny")
    assert "1 claims that were measured on each, 0 have" in text
    assert "| 1 | c | {bdg-success}`holds`<br>30.0 | {bdg-danger}`does not hold`<br>-5.0 | ≥ 0 points |" in text


def test_a_changed_world_has_a_column_only_where_its_base_has_none(world):
    record = records.read(world / "results/mini/exp.json")
    for profile in ("tiny-64", "tiny"):
        records.write(record | {"profile": profile}, world / f"book/runs/{profile}/exp/{profile}/exp.json")
        assert claims.profiles(claims.read()) == ["mini", profile]


def test_reasons_of_several_worlds_side_by_side(world):
    rows = [
        {"condition": "clean", "task": task, "method": method, "accuracy": accuracy}
        for task, accuracies in {"x": (90, 50, 70), "y": (80, 60, 55), "z": (60, 59.5, 50)}.items()
        for method, accuracy in zip(
            ("individual", "task_arithmetic", "layer_wise_adamerging", "zero_shot"), (*accuracies, 9), strict=True
        )
    ]
    for trait in ("classes", "spearman"):
        rows += [{"condition": trait, "task": task, "value": 1.0} for task in "xyz"]
    record = records.new("reasons", "mini", {}, None, rows, [0], "2026-01-01T00:00:00", 7.0)
    records.write(record, world / "results/mini/reasons.json")
    lines = comparisons.reasons_beside_text("mini").splitlines()
    assert "| x | 90.0 | +20.0 | 50 |" in lines and "| z | 60.0 | -9.5 | – |" in lines
    assert "| Average | 76.7 | +1.8 |  |" in lines and any(line.startswith("| expert and share |  |") for line in lines)
    with pytest.raises(ValueError, match="no record of reasons for tiny: run the notebook on that profile"):
        comparisons.reasons_beside_text("mini", "tiny")


def test_status_of_runs(world):
    assert "| exp | mini | 7 | cpu |" in directives.status_text()


def test_every_committed_claim_names_a_page_and_a_value_that_exists(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("ADAMERGING_RESULTS", raising=False)
    for claim in claims.read():
        assert any(Path(claim.page + suffix).is_file() for suffix in (".md", ".ipynb")), claim.id
        found = claims.verdict(claim, "mini")
        assert found.word != verdicts.NOT_RUN, f"{claim.id}: the record of the mini world lacks a row that it names"
        for profile in claims.profiles(claims.read()):
            if claims.verdict(claim, profile).word == verdicts.FAILS:
                assert profile in claim.why, f"{claim.id} does not hold on {profile}: say why, or that nobody knows"
            else:
                assert profile not in claim.why, f"{claim.id} does not fail on {profile}, and yet claims.yml says why"


def test_benchmarks_are_listed(monkeypatch):
    monkeypatch.chdir(ROOT)
    text = directives.benchmarks_text()
    assert "| merge_memory | ViT-L-14, task_arithmetic |" in text and "| adamerging_step |" in text


def test_a_measured_number_in_prose(world):
    inliner = SimpleNamespace(reporter=SimpleNamespace(error=lambda text, line: text))

    def said(text):
        found, errors = roles.measured_role("measured", text, text, 1, inliner)
        return [node.astext() for node in found] + errors

    assert said("mini/exp: average('b')") == ["30.0"]
    assert said("+mini/exp: average('b')") == ["+30.0"]
    assert said("+mini/exp: average('b', 'fog') - average('b')") == ["−25.0"]
    for wrong in ("mini/exp: average('c')", "tiny/exp: average('b')", "average('b')"):
        assert said(wrong) == [f"{wrong}: no record has that."]


def test_the_only_run_of_a_world_stands_beside_the_mini_world(world):
    record = records.read(world / "results/mini/exp.json")
    for row in record["rows"]:
        row["accuracy"] = row.get("accuracy", 0) + 2
    records.write(record | {"profile": "tiny"}, world / "book/runs/tiny/exp/tiny/exp.json")
    text = comparisons.comparison_text("exp", "tiny")
    assert "default (mini) | this run (tiny)" in text and "| b | fog | 3 | 5.0 | 7.0 | +2.0 |" in text
    records.write(record | {"profile": "tiny-64"}, world / "book/runs/tiny-64/exp/tiny-64/exp.json")
    text = comparisons.comparison_text("exp", "tiny-64")
    assert "default (tiny) | this run (tiny-64)" in text
