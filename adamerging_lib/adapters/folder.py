"""A merged adapter as a folder that peft loads."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ..runtime.atomic import atomic
from ..state import save
from .config import CONFIG
from .expert import AdapterExpert, Product
from .low_rank import Factors
from .places import Prefix
from .source import times

WEIGHTS = "adapter_model.safetensors"
_PEFT = "base_model.model."
_HEADS = ("classifier", "score", "qa_outputs")  # what peft saves with a task type of its own accord
_PLAIN_TASKS = ("CAUSAL_LM", "SEQ_2_SEQ_LM", "FEATURE_EXTRACTION")


@dataclass
class Parts:
    """What a merged adapter consists of, by the base's names.

    Arguments:
        factors: tensor of the base → the product that describes its form, and the factors of its change.
        whole: tensor of the base → what takes its place.
    """

    factors: dict[str, tuple[Product, Factors]] = field(default_factory=dict)
    whole: dict[str, Tensor] = field(default_factory=dict)


def write_folder(
    folder: Path,
    parts: Parts,
    base: Mapping[str, Tensor],
    experts: Mapping[str, AdapterExpert],
    note: Mapping[str, str],
) -> None:
    """Write ``adapter_model.safetensors`` and ``adapter_config.json``, each whole or not at all.

    Arguments:
        folder: is made.
        parts: what to write, of scale 1.
        base: θ0, for the other tensors of modules that are saved whole.
        experts: what was merged, for what peft wants to know beside the tensors.
        note: text to keep in the file.
    """
    names = _Names(parts, experts.values())
    saved = _saved_modules(parts, base)
    tensors: dict[str, Tensor] = {}
    for key, (product, (b, a)) in parts.factors.items():
        tensors |= _factor_tensors(names.module(key), product, b, a)
    for key in [*parts.whole, *(key for module in saved for key in base if _module(key) == module)]:
        tensor = parts.whole[key] if key in parts.whole else base[key]
        tensors[_PEFT + names.tensor(key)] = tensor
    config = _config(parts, names, [names.of(module) for module in saved], [e.source.config for e in experts.values()])
    save(folder / WEIGHTS, tensors, {"format": "pt", **note})
    with atomic(folder / CONFIG) as temporary:
        temporary.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _module(key: str) -> str:
    return key.rpartition(".")[0]


def _factor_tensors(module: str, product: Product, b: Tensor, a: Tensor) -> dict[str, Tensor]:
    if product.module.embedding:
        return {f"{_PEFT}{module}.lora_embedding_A": a.float(), f"{_PEFT}{module}.lora_embedding_B": b.float()}
    if len(product.shape) > 2:  # a convolution: A has its kernel, B one of 1
        a, b = a.reshape(-1, *product.shape[1:]), b.reshape(*b.shape, *[1] * (len(product.shape) - 2))
    else:
        b = b / times(module)
    return {f"{_PEFT}{module}.lora_A.weight": a.float(), f"{_PEFT}{module}.lora_B.weight": b.float()}


def _saved_modules(parts: Parts, base: Iterable[str]) -> list[str]:
    """Modules that peft must save whole; biases alone it keeps without that.

    peft finds them by the ends of names, so that what ends alike is saved too, as it is.
    """
    wanted = {_module(key) for key in parts.whole if not key.endswith("bias")}
    return sorted({_module(key) for key in base if any(_module(key).endswith(module) for module in wanted)})


class _Names:
    """Names as peft has them: the adapters' own prefix where they share one, ``base_layer`` where it wraps."""

    def __init__(self, parts: Parts, experts: Iterable[AdapterExpert]) -> None:
        prefixes = {expert.prefix for expert in experts}
        self._prefix = prefixes.pop() if len(prefixes) == 1 else Prefix()
        self._wrapped = {_module(key) for key in parts.factors}
        self._attention = {_module(key) for key in parts.factors if key.endswith(".in_proj_weight")}

    def of(self, module: str) -> str:
        """A module's own name in the model that the adapter is for."""
        return self._prefix.gone + module.removeprefix(self._prefix.new)

    def module(self, key: str) -> str:
        """The module of a tensor, as it lies in peft's model."""
        above, _, last = _module(key).rpartition(".")
        inside = above in self._attention
        return f"{self.of(above)}.base_layer.{last}" if inside else self.of(_module(key))

    def tensor(self, key: str) -> str:
        """A tensor that is not a factor, as it lies in peft's model."""
        name = key.rpartition(".")[2]
        return f"{self.module(key)}.{'base_layer.' if _module(key) in self._wrapped else ''}{name}"


def _config(
    parts: Parts, names: _Names, saved: Sequence[str], configs: Sequence[Mapping[str, Any] | None]
) -> dict[str, Any]:
    inside = ".base_layer.out_proj"
    ranks = {names.module(key): a.shape[0] for key, (_, (_, a)) in parts.factors.items()}
    ranks = {module: rank for module, rank in ranks.items() if not module.endswith(inside)}
    rank = Counter(ranks.values()).most_common(1)[0][0] if ranks else 1
    # Anchored: peft reads a key as a regular expression of a name's end.
    others = {f"^{re.escape(module)}": r for module, r in ranks.items() if r != rank}
    clash = any(one != other and one.endswith(f".{other}") for other in ranks if "." not in other for one in ranks)
    targets = "|".join(re.escape(module) for module in ranks) if clash else sorted(ranks)
    return {
        "peft_type": "LORA",
        "task_type": _task_type(configs, saved),
        "base_model_name_or_path": _shared(configs, "base_model_name_or_path"),
        "r": rank,
        "lora_alpha": rank,
        "rank_pattern": others,
        "alpha_pattern": others,
        "target_modules": targets,
        "modules_to_save": list(saved) or None,
        "bias": "all" if any(key.endswith("bias") for key in parts.whole) else "none",
        "fan_in_fan_out": any(p.transposed and not p.module.embedding for p, _ in parts.factors.values()),
        "lora_dropout": 0.0,
        "init_lora_weights": True,
        "inference_mode": True,
    }


def _shared(configs: Sequence[Mapping[str, Any] | None], name: str) -> Any:
    values = [(config or {}).get(name) for config in configs]
    return values[0] if all(value == values[0] for value in values) else None


def _task_type(configs: Sequence[Mapping[str, Any] | None], saved: Sequence[str]) -> str | None:
    task = _shared(configs, "task_type")
    # Types of classification make peft expect a head in the file.
    whole = any(module.rpartition(".")[2] in _HEADS for module in saved)
    return task if task in _PLAIN_TASKS or whole else None
