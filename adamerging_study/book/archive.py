"""One file that a study is deposited as: sources with records and kept fits, built pages, metadata, checksums.

python -m adamerging_study.book.archive _build/html _build/archive

A bag of BagIt (RFC 8493), packed as .tar.gz: ``sha256sum -c manifest-sha256.txt`` inside it checks every file. The same
commit and pages give the same bytes: names are sorted, and the only time in it is the commit's.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from adamerging_lib.command.line import call
from adamerging_lib.runtime.atomic import atomic

from .edition import Edition, citation, edition, repository

LIMIT = 100_000_000
"""Bytes that a bundle may have."""
_TITLES = """\
source/       the repository at the commit: sources, records and kept fits (results/, book/runs/), shipped checkpoints,
              and the environment's lock (requirements.lock)
pages/        the built book: open pages/index.html; it loads nothing from the network
codemeta.json what this is, for programs
"""


def bundle(pages: Path, target: Path, root: Path = Path()) -> Path:
    """Pack the commit of a checkout, and its built pages, into one file.

    Arguments:
        pages: the built book.
        target: folder to write to.
        root: the checkout.

    Returns:
        The file.

    Raises:
        ValueError: there is no commit, tracked files differ from it, the pages are of another state or are not there,
            or the file would be larger than `LIMIT`.
    """
    found = edition(root.resolve())
    _check(found, pages)
    name = f"adamerging-reproduced-{found.version}-{found.commit[:7]}"
    files = _bag(_data(found, pages, root), found)
    content = _packed(files, name, _committed_at(root))
    if len(content) > LIMIT:
        largest = sorted(files, key=lambda path: -len(files[path]))[:3]
        raise ValueError(f"the bundle has {len(content) / 1e6:.0f} MB; largest: {', '.join(largest)}; leave some out")
    path = target / f"{name}.tar.gz"
    with atomic(path) as temporary:
        temporary.write_bytes(content)
    return path


def codemeta(found: Edition, root: Path) -> dict[str, object]:
    """The edition as CodeMeta 3 describes software."""
    cited = citation(root)
    lock = (root / "requirements.lock").read_text(encoding="utf-8").splitlines()
    told = {
        "@context": "https://w3id.org/codemeta/3.0",
        "@type": "SoftwareSourceCode",
        "name": found.title,
        "description": cited["abstract"].strip(),
        "author": [{"@type": "Organization", "name": name} for name in found.authors],
        "license": f"https://spdx.org/licenses/{cited['license']}",
        "keywords": cited["keywords"],
        "version": found.version,
        "identifier": found.commit,
        "dateModified": found.date,
        "programmingLanguage": "Python",
        "softwareRequirements": [line for line in lock if line and not line.startswith("#")],
        "referencePublication": [
            {"@type": "ScholarlyArticle", "name": paper["title"], "datePublished": str(paper["year"])}
            for paper in cited["references"]
        ],
    }
    return told | ({"codeRepository": address} if (address := repository()) else {})


def _check(found: Edition, pages: Path) -> None:
    if not found.commit:
        raise ValueError("there is no commit here: make the archive in a checkout of the repository")
    if found.changed:
        raise ValueError("tracked files differ from the commit: commit or stash them, then `make archive` again")
    told = pages / "claims.json"
    if not told.is_file():
        raise ValueError(f"{pages} holds no built book: `make html` builds it")
    if json.loads(told.read_text(encoding="utf-8")).get("edition") != found.to_dict():
        raise ValueError(f"the pages in {pages} are of another state than commit {found.commit[:7]}: `make html` again")


def _data(found: Edition, pages: Path, root: Path) -> dict[str, bytes]:
    """Path in the bag's data → content."""
    archived = subprocess.run(["git", "archive", "HEAD"], cwd=root, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archived)) as tar:
        files = {f"source/{m.name}": tar.extractfile(m).read() for m in tar.getmembers() if m.isfile()}
    built = (path for path in pages.rglob("*") if path.is_file() and path.name != ".buildinfo")
    files |= {f"pages/{path.relative_to(pages).as_posix()}": path.read_bytes() for path in built}
    files["codemeta.json"] = (json.dumps(codemeta(found, root), indent=1, ensure_ascii=False) + "\n").encode()
    files["README.txt"] = f"{found.title}, {found.told}\n\n{_TITLES}".encode()
    return files


def _bag(data: Mapping[str, bytes], found: Edition) -> dict[str, bytes]:
    """A bag's files: its data, and what BagIt says of them."""
    files = {f"data/{path}": content for path, content in data.items()}
    size = sum(map(len, files.values()))
    tags = {
        "bagit.txt": b"BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n",
        "bag-info.txt": (
            f"Source-Organization: {'; '.join(found.authors)}\nExternal-Description: {found.title}, {found.told}\n"
            f"Bagging-Date: {found.date}\nPayload-Oxum: {size}.{len(files)}\n"
        ).encode(),
        "manifest-sha256.txt": _manifest(files),
    }
    return files | tags | {"tagmanifest-sha256.txt": _manifest(tags)}


def _manifest(files: Mapping[str, bytes]) -> bytes:
    lines = (f"{hashlib.sha256(files[path]).hexdigest()}  {path}\n" for path in sorted(files))
    return "".join(lines).encode()


def _packed(files: Mapping[str, bytes], name: str, time: int) -> bytes:
    """A .tar.gz in which nothing depends on who packs it, and when."""
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", filename="", mtime=time) as stream:
        with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for path in sorted(files):
                member = tarfile.TarInfo(f"{name}/{path}")
                member.size, member.mtime, member.mode = len(files[path]), time, 0o644
                tar.addfile(member, io.BytesIO(files[path]))
    return packed.getvalue()


def _committed_at(root: Path) -> int:
    shown = subprocess.run(["git", "show", "-s", "--format=%ct"], cwd=root, capture_output=True, text=True, check=True)
    return int(shown.stdout)


# -------------------------------------------------------------------------------------------------- the command line

PROGRAM = "python -m adamerging_study.book.archive"
app = typer.Typer(help="Pack the study.", add_completion=False, pretty_exceptions_enable=False)


@app.command(epilog=f"Example:\n  {PROGRAM} _build/html _build/archive")
def _bundle(
    pages: Annotated[Path, typer.Argument(help="built pages")],
    target: Annotated[Path, typer.Argument(help="folder to write to")],
) -> None:
    """Pack sources, records, kept fits and built pages into one file with checksums."""
    path = bundle(pages, target)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, SHA-256 {digest}")


def main(arguments: list[str] | None = None) -> int:
    """The command line above; see `line.call` for the exit code."""
    return call(app, PROGRAM, arguments)


if __name__ == "__main__":
    sys.exit(main())
