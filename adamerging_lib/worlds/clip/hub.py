"""What lies where on the Hugging Face Hub, and in the local folder that mirrors it, by the hub's own names."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ...state import CheckpointError
from ..roles import same_role
from ..tiny.tasks import HUB
from .tasks import TASKS, hub_split, split_files

SITE = "https://huggingface.co"
BASES = {
    "clip-b32": "openai/clip-vit-base-patch32",
    "clip-b16": "openai/clip-vit-base-patch16",
    "clip-l14": "openai/clip-vit-large-patch14",
    HUB: "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k",
}
"""Profile → the model that its experts are fine-tuned from; those of `tiny-hub` are not on the hub."""
POOLS = {
    "p1": ("task_vectors", "https://github.com/mlfoundations/task_vectors"),
    "p3": ("tall_masks", "https://github.com/nik-dim/tall_masks"),
}
"""Ending of a profile with other experts → the folder that they lie in, and who links to them; not on the hub."""
ARCHITECTURES = {"clip-b32": "ViT-B-32", "clip-b16": "ViT-B-16", "clip-l14": "ViT-L-14"}
_OWNER = "tanganke"
EIGHT, FOURTEEN, TWENTY = (
    tuple(name for name, task in TASKS.items() if task.suite and task.suite <= size) for size in (8, 14, 20)
)
"""The tasks of the AdaMerging paper, and of the two larger suites."""

WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
"""Files that may hold a model's weights, the best first."""
_SIZES = {  # bytes of the weights, as published: for those who are offline
    "openai/clip-vit-base-patch32": 605_000_000,
    "openai/clip-vit-base-patch16": 599_000_000,
    "openai/clip-vit-large-patch14": 1_710_000_000,
    "clip-vit-base-patch32_": 350_000_000,
    "clip-vit-base-patch16_": 343_000_000,
    "clip-vit-large-patch14_": 1_213_000_000,
    "timm/vit_tiny": 22_900_000,
}


@dataclass(frozen=True)
class Repository:
    """A repository of the hub that a profile needs something of.

    Arguments:
        kind: ``models`` or ``datasets``.
        id: ``owner/name``.
        task: whose expert or images it holds; None for a base.
        splits: of a data set, the splits wanted, ``test`` or ``train``.
        source: where people find it, if it is not on the hub.
    """

    kind: str
    id: str
    task: str | None = None
    splits: tuple[str, ...] = ()
    source: str | None = None

    @property
    def place(self) -> str:
        """Its folder below the assets' root."""
        return f"{self.kind}/{self.id}"

    @property
    def page(self) -> str:
        """Its address for people."""
        if self.source:
            return self.source
        return f"{SITE}/{self.id}" if self.kind == "models" else f"{SITE}/datasets/{self.id}"

    @property
    def about(self) -> int | None:
        """How large what is needed of it is, roughly and without asking; None where that is not known."""
        return next((size for name, size in _SIZES.items() if name in self.id), None)


def base_model(profile: str) -> Repository:
    """The base of a profile."""
    return Repository("models", BASES[family(profile)])


def expert_model(profile: str, task: str) -> Repository:
    """The expert of a task."""
    own = family(profile)
    if own == profile:
        return Repository("models", f"{_OWNER}/{BASES[own].partition('/')[2]}_{TASKS[task].expert}", task)
    folder, source = POOLS[profile.removeprefix(f"{own}-")]
    return Repository("models", f"{folder}/{ARCHITECTURES[own]}", task, source=source)


def family(profile: str) -> str:
    """The profile with the hub's experts that has the same base."""
    return next(name for name in BASES if profile in (name, *(f"{name}-{pool}" for pool in POOLS)))


def data_set(task: str, splits: Sequence[str] = ("test",)) -> Repository:
    """The data set of a task."""
    return Repository("datasets", TASKS[task].repo, task, tuple(splits))


def repositories(
    profile: str, tasks: Iterable[str], *, only: str | None = None, splits: Sequence[str] = ("test",)
) -> Iterator[Repository]:
    """Everything that a profile needs for some tasks, models first.

    Arguments:
        profile: a clip profile, or ``tiny-hub``.
        tasks: task names.
        only: ``models`` or ``datasets``; both by default.
        splits: of the data sets.
    """
    tasks = same_role(tasks, TASKS)
    if only in (None, "models"):
        yield base_model(profile)
        yield from (expert_model(profile, task) for task in tasks if profile != HUB)
    if only in (None, "datasets"):
        yield from (data_set(task, splits) for task in tasks)


def weights(repository: Repository, root: Path) -> Path | None:
    """The file that holds a model's weights, or None."""
    folder, task = root / repository.place, repository.task
    names = WEIGHTS
    if repository.source:
        names = _pickles(*(f"{task}{end}/{tuned}" for end in _ENDS for tuned in ("finetuned", "nonlinear_finetuned")))
    return next((folder / name for name in names if (folder / name).is_file()), None)


def head(repository: Repository, root: Path) -> Path | None:
    """The file that holds the head published with an expert, or None."""
    names = _pickles(*(f"head_{repository.task}{end}" for end in _ENDS)) if repository.source else ()
    return next((path for name in names if (path := root / repository.place / name).is_file()), None)


_ENDS = ("", "Val")  # TALL masks names tasks after the splits that it validated on


def _pickles(*stems: str) -> tuple[str, ...]:
    """As `adamerging convert` writes them, or as they were published."""
    return tuple(f"{stem}{end}" for stem in stems for end in (".safetensors", ".pt"))


def whole(path: Path) -> bool:
    """Whether a file ends where, by its own format, it should: safetensors, parquet, JSON and zip; others pass."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
        if path.suffix == ".parquet":
            file.seek(max(size - 4, 0))
            return head[:4] == file.read() == b"PAR1"
        if path.suffix == ".safetensors":
            return _length(head, file, size) == size
    if path.suffix == ".json":
        try:
            json.loads(path.read_bytes())
        except ValueError:
            return False
    return zipfile.is_zipfile(path) if head[:2] == b"PK" else size > 0


def _length(head: bytes, file: BinaryIO, size: int) -> int:
    """How long a safetensors file should be by its own header; -1 where there is none."""
    count = int.from_bytes(head, "little")
    if len(head) < 8 or count > size:
        return -1
    try:
        entries = json.loads(file.read(count))
        return 8 + count + max((v["data_offsets"][1] for k, v in entries.items() if k != "__metadata__"), default=0)
    except (ValueError, KeyError, TypeError, AttributeError):
        return -1


def present(repository: Repository, root: Path) -> tuple[list[str], list[str]]:
    """What can be told without the hub: what of a repository is missing here, and which files are cut short.

    Returns:
        Paths below the root: those to put there (of a data set, the pattern of its files' names), and those broken.
    """
    folder = root / repository.place
    if repository.kind == "models":
        found = weights(repository, root)
        name = f"{repository.task}/finetuned.pt" if repository.source else f"{WEIGHTS[0]} (or {WEIGHTS[-1]})"
        missing = [] if found else [f"{repository.place}/{name}"]
        if not repository.source and not (folder / "config.json").is_file():
            missing.insert(0, f"{repository.place}/config.json")
        files = [found] if found else []
    else:
        missing, files = _present_data(repository, folder)
    return missing, [path.relative_to(root).as_posix() for path in files if not whole(path)]


def _present_data(repository: Repository, folder: Path) -> tuple[list[str], list[Path]]:
    task = TASKS[repository.task]
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    missing, files = [], []
    for split in repository.splits:
        pattern = f"{repository.place}/{task.files.format(split=hub_split(task, split))}"
        try:
            own = split_files(names, task, split)
        except ValueError as error:  # some of its files
            own, pattern = [], f"{pattern}: {error}"
        files += [folder / name for name in own]
        missing += [] if own else [pattern]
    return missing, files


def need(profile: str, wanted: Iterable[Repository], root: Path, *options: str) -> None:
    """Raise CheckpointError naming every file that is missing or cut short, and the command that mends it.

    Arguments:
        profile: a clip profile, or ``tiny-hub``.
        wanted: what is needed.
        root: folder of the assets.
        options: of the command.
    """
    lines = []
    for repository in wanted:
        missing, broken = present(repository, root)
        lines += [f"  missing: {name}" for name in missing] + [f"  cut short: {name}" for name in broken]
    if lines:
        raise CheckpointError(
            f"profile {profile!r} needs files that are not in {root} (or wherever ADAMERGING_ASSETS points):\n"
            + "\n".join(lines)
            + f"\nFetch them: {' '.join(('adamerging fetch --profile', profile, *options))}"
        )


def size(count: float) -> str:
    """A number of bytes for people."""
    power = 0 if count < 1000 else min(3, int(math.log10(count) // 3))
    return f"{count / 1000**power:.{min(power, 1)}f} {('bytes', 'kB', 'MB', 'GB')[power]}"
