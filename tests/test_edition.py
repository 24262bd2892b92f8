"""Editions: version, commit and date at the foot of pages, how to cite them, and the one file that is deposited."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from adamerging_lib.runtime import places
from adamerging_study.book import archive, edition

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("CITATION.cff", "pyproject.toml", "requirements.lock", ".gitattributes", ".git_archival.txt")


def git(folder, *arguments):
    environment = {
        **os.environ,
        "GIT_COMMITTER_DATE": "2026-11-28T10:00:00Z",
        "GIT_AUTHOR_DATE": "2026-11-28T10:00:00Z",
    }
    who = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    command = ["git", *who, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, check=True, env=environment).stdout


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository of one commit, with pages built from it."""
    root = tmp_path / "checkout"
    root.mkdir()
    for name in COPIED:
        (root / name).write_bytes((ROOT / name).read_bytes())
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "a study")
    monkeypatch.setattr(places, "committed", lambda: root / "results")
    monkeypatch.delenv("ADAMERGING_REPOSITORY", raising=False)
    build(root, tmp_path / "html")
    return root


def build(root, pages):
    """What a build leaves: a page, and the edition that it is of."""
    pages.mkdir(exist_ok=True)
    (pages / "index.html").write_text("<p>a page</p>")
    (pages / "claims.json").write_text(json.dumps({"edition": edition.edition(root).to_dict()}))


def test_edition_is_of_the_commit_and_says_what_changed_since(checkout):
    found = edition.edition(checkout)
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert found.told == f"version {version}, 2026-11-28, commit {found.commit[:7]}" and not found.changed
    (checkout / "CITATION.cff").write_text((ROOT / "CITATION.cff").read_text() + "\n")
    assert edition.edition(checkout).told == f"{found.told} and changes since"


def test_an_archive_without_history_knows_its_commit(checkout, tmp_path):
    with tarfile.open(fileobj=io.BytesIO(git(checkout, "archive", "HEAD"))) as tar:
        tar.extractall(tmp_path / "unpacked", filter="data")
    assert edition.edition(tmp_path / "unpacked") == edition.edition(checkout)


def test_without_git_and_archive_only_the_version_is_told(tmp_path):
    for name in COPIED:
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    found = edition.edition(tmp_path)
    assert (found.commit, found.date, found.told) == ("", "", f"version {found.version}")


def test_citation_file_and_project_agree():
    cited = edition.citation(ROOT)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert cited["version"] == project["version"] and cited["license"] == project["license"]
    assert [who["name"] for who in cited["authors"]] == [who["name"] for who in project["authors"]]


def test_how_to_cite_names_edition_and_address(checkout, monkeypatch):
    text, found = edition.citation_text(), edition.edition()
    assert f"version = {{{found.version}}}" in text and f"note = {{commit {found.commit[:12]}}}" in text
    assert "year = {2026}" in text and "url" not in text
    monkeypatch.setenv("ADAMERGING_REPOSITORY", "https://github.com/someone/study.git/")
    assert "url = {https://github.com/someone/study}" in edition.citation_text()


def bundle(checkout, target):
    """Path in the bundle, without its top folder → content; and the bundle's bytes."""
    path = archive.bundle(checkout.parent / "html", target, checkout)
    with tarfile.open(path) as tar:
        members = {m.name.partition("/")[2]: tar.extractfile(m).read() for m in tar.getmembers()}
    return members, path.read_bytes()


def test_bundle_holds_sources_and_pages_with_true_checksums(checkout, tmp_path):
    members, _ = bundle(checkout, tmp_path / "out")
    assert {f"data/source/{name}" for name in COPIED} < set(members) and members[
        "data/pages/index.html"
    ] == b"<p>a page</p>"
    listed = dict(line.split("  ")[::-1] for line in members["manifest-sha256.txt"].decode().splitlines())
    assert listed == {
        path: hashlib.sha256(content).hexdigest() for path, content in members.items() if path.startswith("data/")
    }
    tags = dict(line.split("  ")[::-1] for line in members["tagmanifest-sha256.txt"].decode().splitlines())
    assert tags == {name: hashlib.sha256(members[name]).hexdigest() for name in tags} and len(tags) == 3
    size = sum(len(content) for path, content in members.items() if path.startswith("data/"))
    assert f"Payload-Oxum: {size}.{len(listed)}\n" in members["bag-info.txt"].decode()


def test_metadata_are_those_of_citation_file_lock_and_commit(checkout, tmp_path):
    told, found = json.loads(bundle(checkout, tmp_path / "out")[0]["data/codemeta.json"]), edition.edition(checkout)
    assert told["@type"] == "SoftwareSourceCode" and told["license"].endswith("/MIT")
    assert (told["version"], told["identifier"], told["dateModified"]) == (found.version, found.commit, "2026-11-28")
    lock = (ROOT / "requirements.lock").read_text().splitlines()
    assert told["softwareRequirements"] == [line for line in lock if not line.startswith("#")]
    assert "codeRepository" not in told and "AdaMerging" in told["referencePublication"][0]["name"]


def test_same_inputs_give_the_same_bytes(checkout, tmp_path):
    _, one = bundle(checkout, tmp_path / "one")
    os.utime(tmp_path / "html/index.html", (1, 1))
    (tmp_path / "html/index.html").chmod(0o600)
    _, two = bundle(checkout, tmp_path / "two")
    assert one == two


def test_what_should_not_be_deposited_is_refused_with_the_mend(checkout, tmp_path, monkeypatch, capsys):
    def said(pages=tmp_path / "html"):
        monkeypatch.chdir(checkout)
        assert archive.main([str(pages), str(tmp_path / "out")]) == 2
        assert not (tmp_path / "out").exists()
        return capsys.readouterr().err

    assert "`make html` builds it" in said(tmp_path / "nothing")
    (tmp_path / "html/claims.json").write_text('{"edition": {"commit": "another"}}')
    assert "are of another state than commit" in said()
    build(checkout, tmp_path / "html")
    monkeypatch.setattr(archive, "LIMIT", 100)
    assert "largest: " in said()
    (checkout / "CITATION.cff").write_text((ROOT / "CITATION.cff").read_text() + "\n")
    assert "commit or stash them" in said()


@pytest.mark.parametrize("address", ["", "https://github.com/someone/study"])
def test_experiments_are_launched_where_the_repository_is_known(tmp_path, address):
    """In Binder; and every page has its edition at its foot, with the way to How to cite."""
    (tmp_path / "conf.py").write_text(
        'extensions = ["myst_nb", "sphinx_design", "adamerging_study.book.sphinx"]\nnb_execution_mode = "off"\n'
        'html_theme = "sphinx_book_theme"\n'
        # Verdicts are of other tests, and take half a minute.
        "from adamerging_study.book import directives\ndirectives.claims_data = list\n"
    )
    cells = [
        new_markdown_cell("# Performance", id="a"),
        new_code_cell("a: int = 1", id="b", metadata={"tags": ["parameters"]}),
    ]
    made = new_notebook(cells=cells)
    made.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    for folder in ("notebooks", "book"):
        (tmp_path / folder).mkdir()
    nbformat.write(made, tmp_path / "notebooks/merge_your_own.ipynb")
    (tmp_path / "book/report.md").write_text("# Report\n\n(how-to-cite)=\n## How to cite\n\n```{how-to-cite}\n```\n")
    (tmp_path / "book/rerun.md").write_text("# Rerun\n")
    pages = ("book/report", "book/rerun", "notebooks/merge_your_own")
    (tmp_path / "index.md").write_text("# Index\n\n```{toctree}\n" + "\n".join(pages) + "\n```\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ADAMERGING_REPOSITORY": address, "GITHUB_REF_NAME": "main"}
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-W", "-q", str(tmp_path), str(tmp_path / "html")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report, prose, experiment = ((tmp_path / f"html/{page}.html").read_text() for page in pages)
    launched = "https://mybinder.org/v2/gh/someone/study/main?urlpath=lab/tree/notebooks/merge_your_own.ipynb"
    assert (launched in experiment) == bool(address)
    assert "mybinder" not in prose and ("someone/study" in report) == bool(address)
    told = edition.edition(ROOT).told
    assert told in prose and '<a href="report.html#how-to-cite">How to cite</a>' in prose
    assert '<a href="../book/report.html#how-to-cite">How to cite</a>' in experiment and 'id="how-to-cite"' in report
    assert json.loads((tmp_path / "html/claims.json").read_text())["edition"] == edition.edition(ROOT).to_dict()
