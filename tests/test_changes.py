"""Named versions: what is kept of each, what the page says changed, and that the committed ones are told truly."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from adamerging_lib.runtime import places
from adamerging_study.book import changes

ROOT = Path(__file__).resolve().parents[1]
RECORD = "results/mini/performance.json"
SEED = "book/runs/seed-1/performance/mini/performance.json"
HEAD = "record,claim,word\n"
VERSIONS = yaml.safe_load((ROOT / "results/versions/versions.yml").read_text(encoding="utf-8"))


def git(folder, *arguments):
    who = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    done = subprocess.run(["git", *who, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository whose second commit changes a verdict, adds one and drops one."""
    monkeypatch.setattr(places, "committed", lambda: tmp_path / "results")
    git(tmp_path, "init", "-q")
    (tmp_path / "results").mkdir()
    for lines in (
        [f"{RECORD},lw-over-ta,holds", f"{RECORD},gone,undecided", f"{SEED},lw-over-ta,holds"],
        [f"{RECORD},lw-over-ta,does not hold", f"{RECORD},gone,undecided (point value only)", f"{RECORD},new,holds"],
    ):
        (tmp_path / "results/verdicts.csv").write_text(HEAD + "\n".join(lines) + "\n")
        git(tmp_path, "add", ".")
        git(tmp_path, "commit", "-q", "-m", "words")
    return tmp_path


def test_the_page_tells_what_changed_what_is_new_and_what_is_gone(checkout):
    changes.note("first", "One seed", "A first run.", "HEAD~1")
    changes.note("second", "Five seeds", "More seeds.")
    latest, first = changes.changes_text().split("## One seed")
    date, commit = changes.versions()[1]["date"], git(checkout, "rev-parse", "HEAD")[:7]
    assert latest.startswith(f"## Five seeds\n\n*{date}, commit {commit}.* More seeds.\n")
    assert "2 verdicts are in both versions; the word of 1 changed." in latest
    assert "New: 1 (1 in the drawn world)." in latest
    assert "No longer there: 1 (1 in the drawn world, run seed-1)." in latest
    (row,) = [line for line in latest.splitlines() if line.startswith("| <a")]
    assert 'href="claims.html#lw-over-ta"' in row and "performance, the drawn world" in row
    assert row.index("`holds`") < row.index("`does not hold`")
    assert "3 verdicts: 2 *holds*, 1 *undecided*." in first and "Since then" not in latest


def test_words_that_no_version_has_yet_come_first(checkout):
    changes.note("first", "One seed", "A first run.", "HEAD~1")
    text = changes.changes_text()
    assert text.startswith("## Since then\n") and "`does not hold`" in text.partition("## One seed")[0]


def test_a_claim_that_is_no_longer_made_goes_by_its_id(checkout):
    changes.note("first", "One seed", "A first run.", "HEAD~1")
    path = checkout / "results/verdicts.csv"
    path.write_text(path.read_text().replace("gone,undecided (point value only)", "gone,holds"))
    assert "| `gone` | performance, the drawn world | {bdg-warning}`undecided` | {bdg-success}`holds` |" in (
        changes.changes_text()
    )


def test_what_cannot_be_a_version_is_refused_and_nothing_written(checkout, capsys):
    changes.note("first", "One seed", "A first run.")
    before = sorted(path.name for path in changes.folder().iterdir())
    for name, commit, told in (
        ("first", "HEAD", "there is a version 'first' already: take another name"),
        ("../evil", "HEAD", "take lower-case letters"),
        ("second", "nowhere", "name a commit that has results/verdicts.csv"),
    ):
        assert changes.main(["note", name, "--title", "t", "--told", "s", "--commit", commit]) == 2
        assert told in capsys.readouterr().err
    assert sorted(path.name for path in changes.folder().iterdir()) == before
    assert len(changes.versions()) == 1


def test_without_a_version_the_page_says_how_to_name_one(checkout):
    with pytest.raises(ValueError, match="changes note"):
        changes.changes_text()


def test_committed_versions_are_in_order_and_complete():
    assert [version["date"] for version in VERSIONS] == sorted(version["date"] for version in VERSIONS)
    files = {path.stem for path in (ROOT / "results/versions").glob("*.csv")}
    assert files == {version["name"] for version in VERSIONS}


@pytest.mark.parametrize("version", VERSIONS[1:], ids=lambda version: version["name"])
def test_words_of_a_version_are_those_of_its_commit(version):
    """Not of the first: no list of words was kept then, as its entry says."""
    asked = ["git", "show", f"{version['commit']}:results/verdicts.csv"]
    shown = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=False)
    if shown.returncode:
        pytest.skip("the history here does not reach that commit")
    assert (ROOT / f"results/versions/{version['name']}.csv").read_text(encoding="utf-8") == shown.stdout
