"""Claims over records: which record is asked, what pages show of the verdicts, and that the committed ones are told."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from adamerging_lib import records
from adamerging_lib.runtime import places
from adamerging_lib.runtime.environment import environment
from adamerging_lib.worlds.profiles import PROFILES
from adamerging_study import claims, judge, outcomes, rooms
from adamerging_study.book import comparisons, directives, notebooks, roles, worlds
from adamerging_study.book.sphinx import present

ROOT = Path(__file__).resolve().parents[1]
CLAIM = {"id": "one", "claim": "c", "by": "paper", "where": "Paper, Table 1", "value": "gain", "at_least": 0}
ROOM = """
from ..rooms import Face
FACE = Face(question="Which?", factors={"severity": "level"})
"""
NUMBERS = """
def numbers(sample):
    return {"gain": sample.average("b") - sample.average("a"), "b": sample.average("b"),
            "fog": sample.average("b", condition="fog", severity=3), "missing": sample.average("c")}

def words(rows):
    return {"best": "method b"}
"""


def rows(shift=0.0):
    """Ten images of one task: method a is right on 2, b on 7 of them (with shift 10: on 8)."""
    found = []
    for method, condition, right in (("a", "clean", 2), ("b", "clean", 7), ("b", "fog", 1)):
        share = 10.0 * right + (shift if (method, condition) == ("b", "clean") else 0)
        about = {"method": method, "condition": condition, "seed": 0, "n": 10, "accuracy": share}
        about |= {"severity": 3} if condition == "fog" else {}
        hits = np.arange(10) < round(share / 10)
        found += [{**about, "task": "x", "right": outcomes.pack(hits)}, {**about, "task": "Average"}]
    return found


def record(profile="mini", shift=0.0):
    known = {m: {"label": m.upper(), "needs": "nothing", "task_specific": "nothing", "task_id": False, "static": True}
             for m in "ab"}  # fmt: skip
    head = ("exp", profile, {"steps": 1}, None, rows(shift), [0], "2026-01-01T00:00:00", 7.0)
    return records.new(*head, environment=environment(), methods=known)


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A checkout with one experiment of one claim, its record, and a variant of it."""
    package = tmp_path / "package"
    (package / "exp").mkdir(parents=True)
    for name, text in {"__init__": ROOM, "numbers": NUMBERS}.items():
        (package / "exp" / f"{name}.py").write_text(text)
    monkeypatch.setattr(rooms, "HERE", package)
    import adamerging_study

    monkeypatch.setattr(adamerging_study, "__path__", [*adamerging_study.__path__, str(package)])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(places, "committed", lambda: tmp_path / "results")
    monkeypatch.setenv("ADAMERGING_RESULTS", str(tmp_path / "fresh"))
    claim(package)
    records.write(record(), tmp_path / "results/mini/exp.json")
    records.write(record(shift=10.0), tmp_path / "book/runs/long/exp/mini/exp.json")
    yield tmp_path
    import sys

    for name in [name for name in sys.modules if name.startswith("adamerging_study.exp")]:
        del sys.modules[name]


def claim(package, *changes):
    """Write the room's claims: one, each change of it another."""
    entries = [{**CLAIM, **change} for change in changes or ({},)]
    (package / "exp/claims.yml").write_text(yaml.safe_dump(entries))


def test_verdict_and_its_page(world):
    found = claims.verdict("exp", "one", "mini")
    assert found.word == judge.HOLDS and found.point == 50.0 and found.low < 50 < found.high
    assert claims.profiles({"mini": "", "tiny": ""}) == ["mini"]
    text = directives.claims_text()
    assert "## Paper" in text and "c (Table 1)" in text and "{bdg-success}`holds`<br>50.0 <small>(" in text
    assert "{doc}`page </notebooks/exp>`" in text
    text = directives.claims_count_text()
    assert "| claims | holds | does" in text and "| The drawn world | 1 | 1 | 0 | 0 | 0 | 0 |" in text


def test_without_outcomes_the_word_rests_on_the_point_value_and_says_so(world):
    bare = record()
    for row in bare["rows"]:
        row.pop("right", None)
    records.write(bare, world / "fresh/mini/exp.json")
    assert claims.verdict("exp", "one", "mini").point_only
    assert "{bdg-success}`holds`<br>50.0\\* |" in directives.claims_text()
    assert "| The drawn world | 1 | 1 | 0 | 0 | 0 | 1 |" in directives.claims_count_text()


def test_failures_are_shown_with_their_reason(world):
    claim(world / "package", {"at_least": 99, "why": {"mini": "too small"}}, {"id": "two", "value": "missing"})
    text = directives.claims_text()
    assert "{bdg-danger}`does not hold`" in text and "* **1, the drawn world** (does not hold): too small" in text
    assert "{bdg-light}`not run`" in text and "**2, " not in text


def test_a_claim_about_another_profile_is_not_judged(world):
    claim(world / "package", {"only": ["tiny"]})
    assert claims.verdict("exp", "one", "mini") is None
    assert "| – |" in directives.claims_text()
    assert "| The drawn world | 0 | 0 | 0 | 0 | 0 | 0 |" in directives.claims_count_text()
    assert directives.claims_data()[0]["worlds"] == {}


def test_claims_can_be_cited_and_read_by_programs(world):
    (told,) = directives.claims_data()
    low, high = told["worlds"]["mini"]["interval"]
    assert low < told["worlds"]["mini"]["value"] == 50.0 < high and told["worlds"]["mini"]["word"] == "holds"
    assert told["holds_if"] == "≥ 0 points" and told["experiment"] == "exp"
    assert f'<a id="{told["id"]}" href="#{told["id"]}">1</a>' in directives.claims_text()


@pytest.mark.parametrize(("by", "page"), [("paper", "book/claims.html#one"), ("study", "notebooks/exp.html#exp-one")])
def test_the_place_that_programs_are_told_is_there(world, by, page):
    claim(world / "package", {"by": by})
    (told,) = directives.claims_data()
    assert told["page"] == page
    text = directives.claims_text() if by == "paper" else comparisons.worlds_text("exp")
    assert text.count(f'<a id="{page.partition("#")[2]}" href="#') == 1
    assert "<a id" not in (comparisons.worlds_text("exp") if by == "paper" else directives.claims_text())


def test_every_claim_has_a_place_of_its_own():
    """On a page that is there, and under an id that no other page has, as the single-page book needs it."""
    places = [comparisons.page_of(room, claim) for room, claim in claims.every()]
    assert len({place.partition("#")[2] for place in places}) == len(places)
    for page in {place.partition(".html#")[0] for place in places}:
        assert list(ROOT.glob(f"{page}.*")), page
    for room in {room for room, claim in claims.every() if claim.by == "study"}:
        page = present(notebooks.read(ROOT / f"notebooks/{room}.ipynb"), f"notebooks/{room}")
        assert sum(f"```{{worlds}} {room}\n" in cell.source for cell in page.cells) == 1, room


def test_no_two_claims_of_papers_share_an_address():
    ids = [claim.id for _, claim in claims.by_papers()]
    assert len(ids) == len(set(ids))


def test_a_fresh_record_goes_first(world):
    worse = record(shift=-60.0)
    records.write(worse, world / "fresh/mini/exp.json")
    assert claims.verdict("exp", "one", "mini").point == -10.0


def test_variant_beside_default(world):
    text = comparisons.comparison_text("exp", "long")
    assert "| B | clean | – | 70.0 | 80.0 | +10.0 |" in text and "| A | clean | – | 20.0 | 20.0 | +0.0 |" in text
    assert "## Beside the default run" in text and "the default run | this run | difference" in text
    assert comparisons.comparison_text("exp", "other") == ""


def test_claims_of_several_worlds_side_by_side(world):
    claim(world / "package", {}, {"id": "two", "value": "missing"})
    put = world / "book/runs/tiny/exp/tiny/exp.json"
    records.write(record("tiny"), put)
    assert comparisons.claims_beside_text("mini", "tiny") == (
        "Of 1 claims that were measured on each, 1 have the same verdict.\n"
    )
    records.write(record("tiny", shift=-60.0), put)
    text = comparisons.claims_beside_text("mini", "tiny")
    assert "1 claims that were measured on each, 0 have" in text
    assert "| 1 | c | {bdg-success}`holds`<br>50.0 <small>" in text and "<br>−10.0 <small>" in text


def test_worlds_side_by_side_on_the_page_of_an_experiment(world):
    bare = record("tiny", shift=-60.0)
    for row in bare["rows"]:
        row.pop("right", None)
    records.write(bare, world / "book/runs/tiny/exp/tiny/exp.json")
    claim(world / "package", {"published": "-3.0"}, {"id": "two", "by": "study", "only": ["mini"], "at_most": 99})
    text = comparisons.worlds_text("exp")
    assert text.startswith(":::::{dropdown} The papers' claims, in every world: 1\n")
    papers, own = text.split(":::::{dropdown} The study's own claims, in every world: 1")
    assert "| claim | published | the drawn world | photographs |" in papers
    assert "| c<br><small>holds at ≥ 0 points</small> | *−3.0* | {bdg-success}`holds`<br>50.0 <small>(" in papers
    assert "{bdg-danger}`does not hold`<br>−10.0\\* |" in papers and "unless an asterisk says" in own
    assert "| claim | the drawn world | photographs |" in own and "holds at 0 to 99 points" in own
    assert own.count("</small> | – |") == 1  # photographs are not asked for the second claim


def test_worlds_side_by_side_where_only_the_study_claims(world):
    claim(world / "package", {"by": "study"}, {"id": "two", "by": "study", "value": "missing"})
    text = comparisons.worlds_text("exp")
    assert text.startswith(":::::{dropdown} The study's own claims, in every world: 2\n")
    assert text.count("dropdown") == 1 and "asterisk" not in text and "Other runs" not in text
    assert "holds`<br>50.0 <small>(" in text and "| {bdg-light}`not run` |" in text


def test_a_page_links_all_its_variants_and_each_of_them_the_others(world):
    runs = {"fast": {"exp": {"steps": 1}}, "tiny": {"exp": {"profile": "tiny"}}, "long": {"other": {"steps": 9}}}
    runs |= {"far": {"exp": {"profile": "tiny-64", "steps": 9}}, "lost": {"exp": {"steps": 2}}}
    (world / "runs.yml").write_text(yaml.safe_dump({"runs": runs}, sort_keys=False))
    for run in ("fast", "tiny", "far"):  # and "lost" has no page yet
        (world / f"book/runs/{run}").mkdir(parents=True, exist_ok=True)
        (world / f"book/runs/{run}/exp.ipynb").touch()
    tiny, fast, far = (
        f"{{doc}}`{told} </book/runs/{run}/exp>`"
        for run, told in {
            "tiny": "photographs",
            "fast": "the drawn world, run fast",
            "far": "photographs at 64 px, run far",
        }.items()
    )
    assert worlds.links("exp") == f"Other runs of this experiment: {tiny} · {fast} · {far}"
    default = "{doc}`the drawn world </notebooks/exp>`"
    assert worlds.links("exp", "far") == f"Other runs of this experiment: {default} · {tiny} · {fast}"
    assert comparisons.worlds_text("merge_your_own") == ""


def test_every_profile_has_a_title_of_its_own():
    assert worlds.TITLES.keys() == PROFILES.keys()
    assert len(set(worlds.TITLES.values())) == len(PROFILES) and worlds.DEFAULT in PROFILES


def test_a_changed_world_has_a_column_only_where_its_base_has_none(world):
    for profile in ("tiny-64", "tiny"):
        records.write(record(profile), world / f"book/runs/{profile}/exp/{profile}/exp.json")
        assert claims.profiles({name: p.base for name, p in PROFILES.items()}) == ["mini", profile]


def test_status_of_runs(world):
    assert "| exp | mini | 7 | cpu |" in directives.status_text()


def said(role, text):
    """What a role makes of its text: what the reader sees, or the error."""
    inliner = SimpleNamespace(reporter=SimpleNamespace(error=lambda text, line: text))
    found, errors = role("x", text, text, 1, inliner)
    return [node.astext() for node in found] + errors


def test_numbers_in_prose(world):
    assert said(roles.number_role, "mini/exp: gain") == ["50.0"]
    assert said(roles.number_role, "+mini/exp: gain") == ["+50.0"]
    assert said(roles.number_role, "mini/exp: fog:.0f") == ["10"]
    assert said(roles.number_role, "mini/exp: best") == ["method b"]
    for wrong in ("mini/exp: missing", "mini/exp: nothing", "tiny/exp: gain", "mini/other: gain", "gain"):
        (error,) = said(roles.number_role, wrong)
        assert wrong in error


def test_intervals_and_verdicts_in_prose(world):
    (told,) = said(roles.interval_role, "mini/exp: gain")
    low, high = map(float, told.split(" to "))
    assert low < 50 < high
    assert said(roles.verdict_role, "mini/exp: one") == ["holds"]
    for wrong in ("mini/exp: two", "tiny/exp: one"):
        (error,) = said(roles.verdict_role, wrong)
        assert wrong in error


def test_a_number_in_prose_says_where_it_comes_from(world):
    inliner = SimpleNamespace(reporter=SimpleNamespace(error=lambda text, line: text))
    for role, text in (("number", "+mini/exp: gain"), ("interval", "mini/exp: gain:.2f")):
        ((node,), _) = getattr(roles, f"{role}_role")(role, text, text, 1, inliner)
        told, _, interval = node["explanation"].rpartition("; 95 % interval ")
        assert told == "gain in results/mini/exp.json; default run of 2026-01-01; seed 0"
        assert interval.endswith(" over test images, seed 0 alone")
        low, _, high, *_ = interval.split()
        assert float(low) < 50 < float(high)
    ((node,), _) = roles.number_role("x", "mini/exp: best", "mini/exp: best", 1, inliner)
    assert node["explanation"].startswith("best in results/mini/exp.json")


def test_a_number_of_another_run_says_which(world):
    bare = record("tiny")
    for row in bare["rows"]:
        row.pop("right", None)
    records.write(bare, world / "book/runs/tiny/exp/tiny/exp.json")
    inliner = SimpleNamespace(reporter=SimpleNamespace(error=lambda text, line: text))
    ((node,), _) = roles.number_role("x", "tiny/exp: gain", "tiny/exp: gain", 1, inliner)
    assert "in book/runs/tiny/exp/tiny/exp.json; run tiny of" in node["explanation"]
    assert node["explanation"].endswith("; no interval")
    (told,) = said(roles.intervals_role, "tiny/exp")
    assert told == "no intervals, because the record holds no outcomes of single inputs"


def test_prose_says_what_intervals_are_over(world):
    assert said(roles.intervals_role, "mini/exp") == ["95 % intervals over test images, seed 0 alone"]
    (error,) = said(roles.intervals_role, "mini/other")
    assert "no such record" in error


@pytest.mark.parametrize(
    ("seeds", "text"),
    [
        ([0, 1, 2, 0], "over test texts and seeds 0 to 2"),
        ([2, 0], "over test texts and seeds 0, 2"),
        ([3], "over test texts, seed 3 alone"),
        ([None], "over test texts"),
        ([], ""),
    ],
)
def test_intervals_are_over_the_seeds_of_rows_with_outcomes(seeds, text):
    rows = [{"seed": seed, "right": "x"} for seed in seeds]
    assert roles.over([*rows, {"seed": 9}], "texts") == text


def test_the_only_run_of_a_world_stands_beside_the_drawn_world(world):
    records.write(record("tiny", shift=10.0), world / "book/runs/tiny/exp/tiny/exp.json")
    text = comparisons.comparison_text("exp", "tiny")
    assert "the drawn world | photographs | difference" in text and "| B | clean | – | 70.0 | 80.0 | +10.0 |" in text
    records.write(record("tiny-64"), world / "book/runs/tiny-64/exp/tiny-64/exp.json")
    text = comparisons.comparison_text("exp", "tiny-64")
    assert "## Beside photographs" in text and "photographs | photographs at 64 px | difference" in text


@pytest.fixture
def committed(monkeypatch):
    """The committed records, whatever a build has left."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(places, "results", places.committed)


def test_every_failure_of_a_papers_claim_has_a_reason_and_no_other_has(committed):
    shown = claims.profiles({name: profile.base for name, profile in PROFILES.items()})
    for room, claim in claims.by_papers():
        for profile in shown:
            found = claims.verdict(room, claim.id, profile)
            if found is not None and found.word == judge.FAILS:
                assert profile in claim.why, f"{room}: say why {claim.id} fails on {profile}, or that nobody knows"
        for profile in claim.why:
            found = claims.verdict(room, claim.id, profile)
            words = (judge.FAILS, judge.UNDECIDED)
            assert found is not None and found.word in words, f"{room}: {claim.id} does not fail on {profile}"


def test_ids_of_claims_are_unique_over_all_experiments():
    ids = [claim.id for _, claim in claims.every()]
    assert sorted(set(ids)) == sorted(ids)


def test_words_are_those_of_the_list(committed):
    """results/verdicts.csv: a word on a committed record changes only together with it, by `make accept`."""
    with (ROOT / "results/verdicts.csv").open(encoding="utf-8", newline="") as file:
        assert claims.words(ROOT) == list(csv.DictReader(file))


def test_the_list_of_words_is_written_as_it_is_read(world):
    claims.write_words(world)
    lines = (world / "results/verdicts.csv").read_text().splitlines()
    assert lines[0] == "record,claim,word" and "results/mini/exp.json,one,holds" in lines
    assert "book/runs/long/exp/mini/exp.json,one,holds" in lines


def test_benchmarks_are_listed(monkeypatch):
    monkeypatch.chdir(ROOT)
    text = directives.benchmarks_text()
    assert "| merge_memory | ViT-L-14, task_arithmetic |" in text and "| adamerging_step |" in text
