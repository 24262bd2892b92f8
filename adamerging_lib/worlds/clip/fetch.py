"""`adamerging fetch`: what a profile needs from the Hugging Face Hub, told first, then fetched, resumed and verified.

The files lie as they lie on the hub, ``<root>/models/<owner>/<name>/…`` and ``<root>/datasets/<owner>/<name>/…``:
those that you have already can be put there by hand. The hub is the one that HF_ENDPOINT names.

Why not ``hf_hub_download(local_dir=…)``? With huggingface_hub 2.4.0, against a mirror: a download that is interrupted
leaves nothing, and the next run asks for all of it again; half a file of somebody else is fetched anew; another file of
that name is replaced unasked; and bytes of the right number with another digest take the name.
"""

from __future__ import annotations

import errno
import hashlib
import importlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from filelock import FileLock

from ...files.checkpoint import check_room
from ...state import CheckpointError, sha256
from .hub import SITE, WEIGHTS, Repository, present, whole
from .tasks import TASKS, split_files

MISSING, CUT, DIFFERENT, THERE = "missing", "cut short", "not the hub's file", "there"


@dataclass(frozen=True)
class File:
    """One file of a repository on the hub.

    Arguments:
        repository: whose.
        name: its path there.
        commit: the version of the repository.
        size: bytes.
        sha256: of large files; None for small ones, which git counts by ``blob``.
        blob: git's SHA-1.
        licence: of the repository, as its card says.
    """

    repository: Repository
    name: str
    commit: str
    size: int
    sha256: str | None
    blob: str | None
    licence: str

    @property
    def place(self) -> str:
        """Its path below the assets' root."""
        return f"{self.repository.place}/{self.name}"


def ask(repositories: Iterable[Repository]) -> Iterator[File]:
    """The files that are needed of repositories, with sizes and digests, as the hub tells them.

    Raises:
        ConnectionError: the hub cannot be reached.
        ValueError: it can, but a repository or what should be in it is not there.
    """
    hub = _library("huggingface_hub")
    api = hub.HfApi(endpoint=_endpoint())
    for repository in repositories:
        try:
            info = api.repo_info(repository.id, repo_type=repository.kind.removesuffix("s"), files_metadata=True)
        except hub.errors.GatedRepoError as error:
            raise ValueError(f"{repository.page} wants its terms accepted there, and `hf auth login` here") from error
        except hub.errors.RepositoryNotFoundError as error:
            raise ValueError(f"the hub at {_endpoint()} offers no repository {repository.id!r}") from error
        except Exception as error:  # whatever the network and its client meet
            raise ConnectionError(f"{type(error).__name__}: {_first_line(error)}") from error
        entries = {entry.rfilename: entry for entry in info.siblings}
        tags = [tag.partition(":")[2] for tag in info.tags or () if tag.startswith("license:")]
        for name in _chosen(repository, list(entries)):
            entry = entries[name]
            digest = entry.lfs.sha256 if entry.lfs else None
            yield File(repository, name, info.sha, entry.size, digest, entry.blob_id, _licence(repository, tags))


def _licence(repository: Repository, tags: list[str]) -> str:
    if repository.kind == "datasets":
        tags = tags or [TASKS[repository.task].licence]
    return tags[0] if tags else "none stated"


def _chosen(repository: Repository, names: list[str]) -> list[str]:
    if repository.kind == "datasets":
        chosen = []
        for split in repository.splits:
            own = split_files(names, TASKS[repository.task], split)
            if not own:
                raise ValueError(f"{repository.page} has no parquet files of the split {split!r}; it has {names[:8]}")
            chosen += own
        return chosen
    best = next((name for name in WEIGHTS if name in names), None)
    if best is None or "config.json" not in names:
        raise ValueError(f"{repository.page} holds no model: {WEIGHTS[0]} and config.json are needed")
    shards = [name for name in names if name.startswith("model-") and name.endswith(".safetensors")]
    return ["config.json", best, *(shards if best == WEIGHTS[1] else [])]


def state_of(file: File, root: Path) -> str:
    """Whether a file is missing here, cut short, not the hub's, or there."""
    path = root / file.place
    if not path.is_file():
        return MISSING
    if path.stat().st_size < file.size and not whole(path):
        return CUT
    return (
        THERE if path.stat().st_size == file.size and _digest(path, file) == (file.sha256 or file.blob) else DIFFERENT
    )


def _digest(path: Path, file: File) -> str | None:
    if file.sha256:
        return sha256(path)
    if file.blob is None:
        return None
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def part_of(file: File, root: Path) -> Path:
    """Where a download of a file grows; the name holds the version, so that halves of two are never joined."""
    path = root / file.place
    return path.with_name(f".{path.name}.{(file.sha256 or file.blob or file.commit)[:12]}.part")


def remaining(file: File, root: Path) -> int:
    """Bytes that are still to come of a file that is not there."""
    begun = [p.stat().st_size for p in (part_of(file, root), root / file.place) if p.is_file()]
    return max(file.size - begun[0], 0) if begun and state_of(file, root) in (MISSING, CUT) else file.size


def download(file: File, root: Path) -> None:
    """Fetch one file, from where an earlier attempt stopped; it takes its name when its digest is the hub's.

    Raises:
        ValueError: the disk is full, or what came is not what was promised.
        ConnectionError: the hub cannot be reached, or stopped midway; what came is kept.
    """
    hub = _library("huggingface_hub")
    transfer = _library("huggingface_hub.file_download")
    path, part = root / file.place, part_of(file, root)
    kind = file.repository.kind.removesuffix("s")
    url = hub.hf_hub_url(
        file.repository.id, file.name, repo_type=kind, revision=file.commit, endpoint=_endpoint()
    )  # fmt: skip
    headers = {**hub.utils.build_hf_headers(), "Accept-Encoding": "identity"}
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(part.with_suffix(".lock")):
        try:
            if state_of(file, root) == CUT and not part.is_file():
                os.replace(path, part)  # half a download of somebody else's: taken up where it stopped
            if part.is_file() and part.stat().st_size > file.size:
                part.unlink()
            with part.open("ab") as growing:
                transfer.http_get(
                    url, growing, resume_size=growing.tell(), expected_size=file.size, headers=headers,
                    displayed_filename=f"{file.repository.id.partition('/')[2]}/{file.name}",
                )  # fmt: skip
        except Exception as error:  # whatever the network and its client meet
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise ValueError(
                    f"the disk is full: {remaining(file, root) / 1e9:.2f} GB of {path} are still to come. Make room, "
                    f"or let ADAMERGING_ASSETS name a folder elsewhere, and run the same again: what came is kept"
                ) from error
            raise ConnectionError(f"{file.place} stopped midway ({_first_line(error)})") from error
        if _digest(part, file) != (file.sha256 or file.blob):
            part.unlink()
            raise ValueError(f"{file.place} did not arrive as the hub has it (its digest differs): run the same again")
        os.replace(part, path)
    part.with_suffix(".lock").unlink(missing_ok=True)


def room(files: Iterable[File], root: Path) -> int:
    """Bytes that files take that are to be fetched; ValueError where the disk has fewer free."""
    needed = sum(remaining(file, root) for file in files)
    check_room(root / "new", needed)
    return needed


def by_hand(repositories: Iterable[Repository], root: Path, reason: object) -> str:
    """What is missing, told without the hub: exactly which files to put where.

    Raises:
        ValueError: with that, unless nothing is missing.
    """
    lines, hurt = [], []
    for repository in repositories:
        missing, broken = present(repository, root)
        about = f"about {repository.about / 1e9:.2f} GB, " if repository.about else ""
        lines += [f"  {name}\n    {about}from {repository.page}" for name in missing]
        hurt += [f"  {name} is cut short: put it there again, whole, from {repository.page}" for name in broken]
    if not lines and not hurt:
        return f"the hub cannot be reached ({reason}); nothing is missing, but nothing was verified either"
    raise ValueError(
        f"the hub at {_endpoint()} cannot be reached ({reason}).\nWhere it can be, fetch these files (or run "
        f"`adamerging fetch` there and copy the folder), and put them below {root}, under the same names:\n"
        + "\n".join(lines + hurt)
        + "\nAnother folder: ADAMERGING_ASSETS. Another hub, such as a mirror: HF_ENDPOINT."
    )


def check(path: Path) -> None:
    """Raise CheckpointError where the assets' root cannot be written to."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be made ({error.strerror}): let ADAMERGING_ASSETS name another"
        ) from error


def _endpoint() -> str:
    # Read when it is needed: the library keeps what was set when it was imported.
    return (os.environ.get("HF_ENDPOINT") or SITE).rstrip("/")


def _library(name: str) -> ModuleType | Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(f"{name} is not installed: pip install 'adamerging_lib[clip]'") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
