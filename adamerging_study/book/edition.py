"""Which edition of the study pages are of, and how it is cited: version, commit and date, the same for every build."""

from __future__ import annotations

import html
import os
import re
import subprocess
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

from adamerging_lib.runtime import places

ARCHIVED = ".git_archival.txt"
_KEY = "adamerging_reproduced"


@dataclass(frozen=True)
class Edition:
    """A state of the study.

    Arguments:
        title, authors: from ``CITATION.cff``.
        version: from ``pyproject.toml``.
        commit, date: of the commit, the date as ``2026-11-28``; empty without a history and outside an archive of one.
        changed: whether tracked files differ from the commit.
    """

    title: str
    authors: tuple[str, ...]
    version: str
    commit: str
    date: str
    changed: bool

    @property
    def told(self) -> str:
        """Version, date and commit in a phrase."""
        parts = [f"version {self.version}"]
        if self.commit:
            parts += [self.date, f"commit {self.commit[:7]}" + (" and changes since" if self.changed else "")]
        return ", ".join(parts)

    def to_dict(self) -> dict[str, object]:
        """As plain values."""
        return asdict(self) | {"authors": list(self.authors)}


def edition(root: Path | None = None) -> Edition:
    """The edition of a checkout, or of an archive of one; default: where the committed records lie."""
    root = root or places.committed().parent
    cited = citation(root)
    commit, date, changed = _from_git(root) or (*_archived(root), False)
    names = (" ".join(filter(None, map(who.get, ("given-names", "family-names", "name")))) for who in cited["authors"])
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return Edition(cited["title"], tuple(names), project["version"], commit, date, changed)


def citation(root: Path) -> dict:
    """What ``CITATION.cff`` says."""
    return yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))


def repository() -> str:
    """The repository's address, where the build is told it (the workflows do): $ADAMERGING_REPOSITORY, else empty."""
    return os.environ.get("ADAMERGING_REPOSITORY", "").removesuffix("/").removesuffix(".git")


def footer(edition: Edition, cite: str | None) -> str:
    """The line at the foot of every page, as HTML.

    Arguments:
        edition: the edition.
        cite: address of the section *How to cite*; None where there is none.
    """
    link = f' · <a href="{html.escape(cite)}">How to cite</a>' if cite else ""
    return f'<p class="edition">{html.escape(f"{edition.title}, {edition.told}")}{link}</p>'


def citation_text() -> str:
    """How to cite the edition: a sentence, and an entry for BibTeX."""
    found = edition()
    year, authors = found.date[:4], " and ".join(found.authors)
    fields = {"author": f"{{{authors}}}", "title": f"{{{found.title}}}", "version": found.version, "year": year}
    if found.commit:
        fields["note"] = f"commit {found.commit[:12]}"
    fields["url"] = repository()
    lines = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items() if value)
    when = f" ({year})" if year else ""
    return f"{authors}{when}. *{found.title}*, {found.told}.\n\n```bibtex\n@software{{{_KEY},\n{lines}\n}}\n```\n"


def _from_git(root: Path) -> tuple[str, str, bool] | None:
    """Commit, its date, and whether tracked files differ; None where the folder is not a checkout of its own."""
    if not (root / ".git").exists():  # a folder inside another repository is not a checkout of that one
        return None
    shown = _git(root, "show", "--no-patch", "--format=%H %cs", "HEAD")
    if not shown:
        return None
    commit, date = shown.split()
    return commit, date, bool(_git(root, "status", "--porcelain", "--untracked-files=no"))


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    except FileNotFoundError:  # no git on this machine
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _archived(root: Path) -> tuple[str, str]:
    """Commit and date as `git archive` wrote them; empty where it did not."""
    path = root / ARCHIVED
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    found = re.search(r"^node: (\w+)\nnode-date: ([\d-]+)$", text, re.MULTILINE)
    return (found[1], found[2]) if found else ("", "")
