"""An adapter on disk: its files, its tensors, its configuration, and what it is in a few facts."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..files.checkpoint import CheckpointFile
from ..runtime.places import given
from ..state import CheckpointError
from .config import CONFIG, LoraSettings, Unfit, read_config, settings, unsupported
from .names import Contents, Module, adapter_kinds, read_names, unmerged

PathLike = str | os.PathLike[str]
_WEIGHTS = ("adapter_model.safetensors", "adapter_model.safetensors.index.json", "adapter_model.bin")
_MODELS = ("model.safetensors", "model.safetensors.index.json")
# peft's layer for torch's MultiheadAttention adds the change of its output projection twice, in training as in
# merging: an adapter trained so means twice s·B A. Its settings are those of the attention.
_OUT = ".base_layer.out_proj"
_PICKLED = (".pt", ".pth", ".bin", ".ckpt")


@dataclass(frozen=True)
class AdapterSource:
    """An adapter on disk, opened.

    Arguments:
        path: its file of weights.
        files: all its files, its configuration among them: two of equal weights and other scales are two adapters.
        tensors: name → tensor, read when asked for.
        layout: name → tensor on ``meta``.
        config: of its ``adapter_config.json``; None where there is none.
        contents: what the names of its tensors mean.
        metadata: of the file.
    """

    path: Path
    files: tuple[Path, ...]
    tensors: Mapping[str, Tensor]
    layout: Mapping[str, Tensor]
    config: Mapping[str, Any] | None
    contents: Contents
    metadata: Mapping[str, str]


@dataclass(frozen=True)
class AdapterFacts:
    """What an adapter is, without its base.

    Arguments:
        path: its file of weights.
        kind: such as ``LoRA``, ``rsLoRA``, ``LoHa``.
        problem: why it cannot be an expert, with the mend; None where it can.
        ranks: module → r.
        scales: module → s of ΔW = s·B A.
        saved: names of the tensors that it replaces whole: modules to save, biases.
        base: the base that it names (``base_model_name_or_path``); empty where it names none.
        numbers: how many numbers it holds.
    """

    path: Path
    kind: str
    problem: str | None
    ranks: Mapping[str, int]
    scales: Mapping[str, float]
    saved: tuple[str, ...]
    base: str
    numbers: int


def is_adapter(path: PathLike) -> bool:
    """Whether a file or folder is an adapter: by its name, the configuration beside it, or its tensors' names."""
    path = given(path)
    if path.is_dir():
        return not any((path / name).is_file() for name in _MODELS) and any(
            (path / name).is_file() for name in (*_WEIGHTS, CONFIG)
        )
    if path.name in (*_WEIGHTS, CONFIG) and path.is_file():
        return True
    if path.suffix in _PICKLED:
        return path.is_file() and (path.parent / CONFIG).is_file() and not (path.parent / "config.json").is_file()
    try:
        names = CheckpointFile(path).layout if path.suffix == ".safetensors" else ()
        return bool(adapter_kinds(names)) and not unmerged(names)
    except CheckpointError:
        return False  # opening it tells what is wrong


def is_both(path: PathLike) -> bool:
    """Whether a folder holds a whole model and an adapter."""
    path = given(path)
    return all(any((path / name).is_file() for name in names) for names in (_WEIGHTS, _MODELS))


def open_adapter(path: PathLike) -> AdapterSource:
    """Open an adapter; nothing in its files is executed.

    Arguments:
        path: its folder, or its file of weights with ``adapter_config.json`` beside it.

    Raises:
        CheckpointError: naming the file and the mend.
    """
    path = _weights(given(path))
    beside = path.parent / CONFIG
    config = read_config(beside) if beside.is_file() else None
    if path.suffix in _PICKLED:
        from ..checkpoints.reading import open_source  # whose room converts adapters, and so imports this one

        source = open_source(path)
        tensors, files, metadata = source.tensors, source.files, {}
        layout = {name: tensor.to("meta") for name, tensor in tensors.items()}
    else:
        tensors = CheckpointFile(path)
        layout, files, metadata = tensors.layout, tensors.files, tensors.metadata
    files = (*files, *([beside] if config is not None else []))
    return AdapterSource(path, files, tensors, layout, config, read_names(layout), metadata)


def _weights(path: Path) -> Path:
    if path.name == CONFIG:
        path = path.parent
    if not path.is_dir():
        if not path.is_file():
            raise CheckpointError(f"no adapter at {path}: check the path")
        return path
    for name in _WEIGHTS:
        if (path / name).is_file():
            return path / name
    within = sorted(place.parent for place in path.glob(f"*/{CONFIG}"))
    mend = f"give one of its adapters, such as {within[0]}" if within else "fetch it again, or name the file"
    raise CheckpointError(f"{path} holds no {_WEIGHTS[0]}: {mend}")


def problem_of(source: AdapterSource) -> str | None:
    """Why an adapter cannot be an expert, with the mend; None where it can."""
    unfit = unsupported(source.config) if source.config is not None else None
    kinds = [kind for kind in adapter_kinds(source.layout) if kind != "LoRA"]
    if unfit is None and kinds:
        unfit = Unfit(f"an adapter of kind {'/'.join(kinds)}")
    if unfit is not None:
        return f"{source.path} is {unfit.what}: its change is not s·B·A on the base. {_mend(unfit.merges, source.path)}"
    contents = source.contents
    if len(contents.adapters) > 1:
        return (
            f"{source.path} holds {len(contents.adapters)} adapters ({', '.join(sorted(contents.adapters))}): save "
            f"each in a folder of its own with peft's save_pretrained(folder, selected_adapters=[name])"
        )
    if contents.twice:
        return (
            f"{source.path} has two factors for one place, of which {contents.twice[0]!r} is the second: save one "
            f"adapter alone, with peft's save_pretrained"
        )
    if contents.odd:
        return f"{source.path} has {contents.odd[0]!r} without the other factor: it is cut short; fetch it again"
    if not contents.modules and not contents.whole:
        return f"{source.path} holds no tensors: it was saved empty, or before it was gathered; save it again"
    return None if source.config is not None else _scaleless(source)


def _scaleless(source: AdapterSource) -> str | None:
    """Without a configuration, α must stand in the file; kohya's and older files of diffusers may leave out α = r."""
    modules = source.contents.modules.values()
    lacking = [module.name for module in modules if not module.alpha and module.style == "peft"]
    if not lacking:
        return None
    return (
        f"{source.path} has no {CONFIG} beside it, and nothing else tells the scale alpha/r of {lacking[0]!r}: put the "
        f'adapter\'s own there, or {{"peft_type": "LORA", "r": R, "lora_alpha": ALPHA}} as it was trained'
    )


def _mend(merges: str, path: Path) -> str:
    """What to do with an adapter that is not a plain LoRA."""
    if merges == "never":
        return "No weights say the same, and peft cannot merge it either: leave this expert out"
    save = "merge_and_unload().save_pretrained(FOLDER)"
    if merges == "training":
        return (
            f"Where it was trained, the model has its own base: merge it there, model.{save}, and give that; or save "
            f"it there as plain LoRA, by path_initial_model_for_weight_conversion of save_pretrained"
        )
    folder = json.dumps(str(path.parent), ensure_ascii=False)
    return (
        f"Merge it into its base with peft first, and give that model: PeftModel.from_pretrained(base, {folder}).{save}"
    )


def settings_of(source: AdapterSource) -> LoraSettings | None:
    """The numbers of its configuration; None where it has none."""
    return None if source.config is None else settings(source.config, source.path.parent / CONFIG)


def base_name(source: AdapterSource) -> str:
    """The base that an adapter names; empty where it names none."""
    return str((source.config or {}).get("base_model_name_or_path") or "")


def ranks_of(source: AdapterSource) -> dict[str, int]:
    """Module → r."""
    return {name: rank_of(source, module) for name, module in source.contents.modules.items()}


def rank_of(source: AdapterSource, module: Module) -> int:
    """r, from the shape of A."""
    shape = source.layout[module.a].shape
    return shape[0] if shape else 0


def scale_of(source: AdapterSource, module: Module, numbers: LoraSettings | None) -> float:
    """s of ΔW = s·B A.

    Raises:
        CheckpointError: the configuration speaks of another rank than the factors have, or α is not a number.
    """
    rank = rank_of(source, module)
    if numbers is None:
        if not module.alpha:
            return 1.0
        alpha = source.tensors[module.alpha].double()
        if alpha.numel() != 1 or not math.isfinite(alpha.item()):
            raise CheckpointError(f"{module.alpha!r} of {source.path} is not a number: fetch it again")
        # kohya's loader takes 0 for "as large as the rank".
        return (alpha.item() or rank) / rank
    if module.alpha:
        raise CheckpointError(f"{source.path} has {module.alpha!r} beside a {CONFIG}: remove one of the two")
    known_as = module.name.removesuffix(_OUT)
    if (expected := numbers.rank_of(known_as)) != rank:
        raise CheckpointError(
            f"{module.a!r} of {source.path} has rank {rank}, and {CONFIG} says {expected}: they are of two adapters; "
            f"fetch both files again"
        )
    return numbers.scale_of(known_as) * times(module.name)


def times(module: str) -> int:
    """How often peft adds the product of a module's factors to its weight."""
    return 2 if module.endswith(_OUT) else 1


def describe(path: PathLike) -> AdapterFacts:
    """What an adapter is, as far as it can be said without its base.

    Arguments:
        path: its folder or file.

    Raises:
        CheckpointError: it cannot be read.
    """
    source = open_adapter(path)
    config, modules = source.config or {}, source.contents.modules
    problem, ranks, scales = problem_of(source), {}, {}
    kinds = adapter_kinds(source.layout)
    kind = "/".join(kinds) or str(config.get("peft_type") or "adapter")
    if kinds in ((), ("LoRA",)) and config.get("peft_type") == "LORA":
        kind = "DoRA" if config.get("use_dora") else "rsLoRA" if config.get("use_rslora") else "LoRA"
    if problem is None:
        try:
            numbers = settings_of(source)
            ranks = ranks_of(source)
            scales = {name: scale_of(source, module, numbers) for name, module in modules.items()}
        except CheckpointError as error:
            problem = str(error)
    count = sum(tensor.numel() for tensor in source.layout.values())
    whole = tuple(source.contents.whole)
    return AdapterFacts(source.path, kind, problem, ranks, scales, whole, base_name(source), count)
