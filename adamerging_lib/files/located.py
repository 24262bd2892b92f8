"""Which files make up a checkpoint: one, several with an index, several that are numbered, or those of a folder."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..runtime.places import given
from ..runtime.values import few
from ..state import CheckpointError
from .signatures import foreign

INDEX = ".index.json"
PICKLED = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".tar")
_WEIGHTS = (".safetensors", *PICKLED)
# What a folder's weights are called, in transformers' own order.
_USUAL = ("model.safetensors", f"model.safetensors{INDEX}", "pytorch_model.bin", f"pytorch_model.bin{INDEX}")
_NUMBERED = re.compile(r"(?P<stem>.+?)[-_.](?P<number>\d+)-of-(?P<of>\d+)(?P<end>(\.\w+)*?\.\w+)")
# Llama's, DeepSpeed's and Megatron's own: every file holds a slice of every tensor.
_SLICED = re.compile(r"(?P<start>consolidated\.|(zero_pp_rank_\d+_)?mp_rank_|zero_pp_rank_)\d+(?P<end>\D.*)")
# What trainers leave beside the weights.
_OTHERS = re.compile(r"(?i)(training_args|optim|scheduler|rng_state|random_states|scaler|trainer_state|adapter_).*")
_ADAPTER = ("adapter_model.safetensors", "adapter_model.bin", "adapter_config.json")


@dataclass(frozen=True)
class Located:
    """The files of a checkpoint.

    Arguments:
        path: its file, its index, or the first of its numbered files.
        files: file → the names of its tensors that count, or None for all.
    """

    path: Path
    files: Mapping[Path, tuple[str, ...] | None]


def locate(path: str | os.PathLike[str], *, part: bool = False) -> Located:
    """Find the files of a checkpoint.

    Arguments:
        path: a file; the ``.index.json`` of several; or a folder with either. ``~`` is the home folder.
        part: whether one of several files may be taken for itself.

    Raises:
        CheckpointError: naming what is missing, or what there is to choose from.
    """
    path = given(path)
    if path.is_dir():
        return _in_folder(path)
    if not path.is_file():
        raise CheckpointError(_missing(path))
    if path.name.endswith(INDEX):
        return Located(path, _indexed(path))
    if not part and (whole := _whole(path)):
        raise CheckpointError(f"{path} is only a part, one of {whole}: name {_place(path)}")
    return Located(path, {path: None})


def _place(path: Path) -> str:
    return "the file that they write" if _SLICED.fullmatch(path.name) else f"the folder {path.parent}, or the index"


def _missing(path: Path) -> str:
    if path.is_symlink():
        return f"{path} is a link to {os.readlink(path)}, where there is no file: fetch it again, or correct the link"
    started = [f"{path.name}{end}" for end in (".incomplete", ".part", ".aria2", ".crdownload")]
    if there := [name for name in started if path.with_name(name).is_file()]:
        return f"no checkpoint at {path}, but the unfinished download {there[0]}: finish it, or fetch it again"
    return f"no checkpoint at {path}: check the path"


def _whole(path: Path) -> str:
    """The checkpoint in several files that a file is a part of, as words; empty where it is none."""
    if sliced := _SLICED.fullmatch(path.name):
        pattern = re.compile(re.escape(sliced["start"]) + r"\d+" + re.escape(sliced["end"]))
        if len(slices := [other.name for other in path.parent.iterdir() if pattern.fullmatch(other.name)]) > 1:
            return f"{len(slices)} slices of one model that ran in parallel, which its own tools put together"
    if (found := _NUMBERED.fullmatch(path.name)) and int(found["of"]) > 1:
        return f"{int(found['of'])} files"
    for index in sorted(path.parent.glob(f"*{INDEX}")):
        if path.name in (names := _named(index)) and len(names) > 1:
            return f"the {len(names)} files of {index.name}"
    return ""


def _named(index: Path) -> set[str]:
    try:
        return {file.name for file in _indexed(index, check=False)}
    except CheckpointError:
        return set()


def _indexed(index: Path, *, check: bool = True) -> dict[Path, tuple[str, ...]]:
    """File → names of its tensors that count, of a checkpoint with an index."""
    try:
        text = index.read_text(encoding="utf-8-sig")
        if not text.lstrip().startswith("{") and (words := foreign(index)):
            raise CheckpointError(f"{index} {words}")
        where = json.loads(text, object_pairs_hook=_once)["weight_map"]
        files: dict[Path, list[str]] = {}
        for key, name in where.items():
            place = Path(name)
            if place.is_absolute() or ".." in place.parts or not place.name:
                raise ValueError(f"{name!r} is not a file beside it")
            files.setdefault(index.parent / place, []).append(key)
        if not files:
            raise ValueError("its 'weight_map' is empty")
    except CheckpointError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{index} is not an index of a checkpoint: it needs a 'weight_map' from names of tensors to files ({error})"
        ) from error
    if check and (missing := [path.name for path in files if not path.is_file()]):
        more = f", nor are {len(missing) - 1} more" if len(missing) > 1 else ""
        raise CheckpointError(f"{index} names {missing[0]}, which is not beside it{more}: fetch all its parts")
    return {file: tuple(names) for file, names in files.items()}


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise ValueError(f"it names {twice!r} twice")
    return found


def _in_folder(folder: Path) -> Located:
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    if usual := [name for name in _USUAL if name in names]:
        return locate(folder / usual[0], part=True)
    if any(name in names for name in _ADAPTER):
        raise CheckpointError(
            f"{folder} holds an adapter ({next(n for n in _ADAPTER if n in names)}), not a model: merge it into its "
            f"base first, with merge_and_unload() of peft, and save that"
        )
    for endings in (".safetensors",), PICKLED:
        if found := _checkpoints(folder, [n for n in names if n.removesuffix(INDEX).endswith(endings)]):
            if len(found) > 1:
                raise CheckpointError(f"{folder} holds several checkpoints, {few(list(found))}: name one of them")
            return next(iter(found.values()))
    raise CheckpointError(_nothing(folder, names))


def _checkpoints(folder: Path, names: list[str]) -> dict[str, Located]:
    """The checkpoints among some files of a folder: what to call each → its files."""
    found: dict[str, Located] = {}
    used = set()
    for name in names:
        if name.endswith(INDEX):
            found[name] = Located(folder / name, _indexed(folder / name))
            used.update(file.name for file in found[name].files)
    sets: dict[tuple[str, int, str], dict[int, str]] = {}
    for name in names:
        if name in used or name in found or _OTHERS.match(name):
            continue
        if (part := _NUMBERED.fullmatch(name)) and int(part["of"]) > 1:
            sets.setdefault((part["stem"], int(part["of"]), part["end"]), {})[int(part["number"])] = name
        else:
            found[name] = Located(folder / name, {folder / name: None})
    for (_, count, _), parts in sets.items():
        first = 0 if 0 in parts else 1
        if missing := [n for n in range(first, first + count) if n not in parts]:
            raise CheckpointError(
                f"{folder} holds {len(parts)} of the {count} parts that {min(parts.values())} belongs to; number "
                f"{few([str(n) for n in missing])} is missing: fetch all parts"
            )
        files = [folder / parts[n] for n in sorted(parts)]
        found[files[0].name] = Located(files[0], dict.fromkeys(files))
    return found


def _nothing(folder: Path, names: Sequence[str]) -> str:
    within = sorted(
        path.relative_to(folder).parts[0] for path in folder.glob("*/*") if path.name.endswith((*_WEIGHTS, INDEX))
    )
    if (folder / "snapshots").is_dir():  # of the hub's cache
        within = sorted(f"snapshots/{path.name}" for path in (folder / "snapshots").iterdir())
    hint = f"; there are checkpoints in its folders {few(list(dict.fromkeys(within)))}" if within else ""
    if not hint and (unfinished := [*folder.glob("*.incomplete"), *(folder / ".cache").rglob("*.incomplete")]):
        hint = f"; the download of {few([path.name for path in unfinished], 1)} is unfinished"
    return (
        f"{folder} is a folder without model.safetensors, pytorch_model.bin or another file of weights; it "
        f"{f'holds {few(names)}' if names else 'holds no files'}{hint}: name the file"
    )
