"""What ``adapter_config.json`` says of an adapter: its scale per module, or why it is not a product of two factors."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..runtime.values import is_number
from ..state import CheckpointError

CONFIG = "adapter_config.json"
# Fields of a LoraConfig that change what the factors mean, and what each is called.
_CHANGING = {
    "use_dora": "DoRA, which rescales whole rows of a weight",
    "use_qalora": "QA-LoRA, for quantised bases",
    "use_bdlora": "BD-LoRA, whose factors are block-diagonal",
    "kasa_config": "KaSA, which cuts singular values off the base",
    "monteclora_config": "MonteCLoRA, which samples its weights",
    "arrow_config": "Arrow, which routes between adapters",
    "alora_invocation_tokens": "activated LoRA (aLoRA), which changes some tokens only",
    "layer_replication": "an adapter of a base whose layers are repeated",
    "target_parameters": "LoRA of single parameters (target_parameters), as of a mixture of experts",
    "trainable_token_indices": "LoRA with single rows of an embedding trained (trainable_token_indices)",
    "enable_lora": "LoRA of parts of a fused weight (enable_lora, peft before 0.3)",
    "megatron_config": "LoRA of Megatron's parallel layers",
}
# Initialisations that move a part of the base into the factors: without them, the base is not the one on disk.
_MOVING = {
    "pissa": "PiSSA",
    "olora": "OLoRA",
    "corda": "CorDA",
    "lora_ga": "LoRA-GA",
    "loftq": "LoftQ",
}
# What no merge can express, in peft neither: tokens that are put before the input, and what is chosen token by token.
_NEVER = {
    *("use_qalora", "alora_invocation_tokens", "arrow_config"),
    *("PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "ADAPTION_PROMPT", "CPT", "CARTRIDGE"),
    *("XLORA", "POLY"),
}
_NEUTRAL = {
    *("auto_mapping", "base_model_name_or_path", "bias", "corda_config", "ensure_weight_tying", "eva_config"),
    *("exclude_modules", "fan_in_fan_out", "inference_mode", "init_lora_weights", "layers_pattern", "lora_dropout"),
    *("layers_to_transform", "loftq_config", "lora_alpha", "lora_bias", "lora_ga_config", "megatron_core"),
    *("modules_to_save", "modules_to_tie", "target_modules_to_tie", "peft_type", "peft_version", "qalora_group_size"),
    *("r", "rank_pattern", "alpha_pattern", "revision", "runtime_config", "target_modules", "task_type"),
    *("use_rslora", "velora_config", "merge_weights", "_custom_modules"),
}


@dataclass(frozen=True)
class LoraSettings:
    """What a LoRA adapter's configuration says of its factors.

    Arguments:
        rank: r where no pattern says otherwise.
        alpha: α where no pattern says otherwise.
        rank_pattern, alpha_pattern: regular expression of a module's name → r or α, as peft reads them.
        rslora: whether the scale is α/√r instead of α/r.
        fan_in_fan_out: whether weights are stored ``[in, out]``.
    """

    rank: int
    alpha: float
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)
    rslora: bool = False
    fan_in_fan_out: bool = False

    def rank_of(self, module: str) -> int:
        """r of a module of the base, by its name there."""
        return _matching(self.rank_pattern, module, self.rank)

    def scale_of(self, module: str) -> float:
        """s in ΔW = s·B A."""
        rank = self.rank_of(module)
        return _matching(self.alpha_pattern, module, self.alpha) / (math.sqrt(rank) if self.rslora else rank)


def _matching(patterns: Mapping[str, Any], module: str, default: Any) -> Any:
    # As peft's get_pattern_key: the first that fits the name's end, from one of its dots on.
    return next((value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", module)), default)


def read_config(path: Path) -> dict[str, Any]:
    """The content of an ``adapter_config.json``.

    Raises:
        CheckpointError: where it is not a JSON object.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8-sig"))
        if not isinstance(config, dict):
            raise ValueError(f"it holds a {type(config).__name__}")
    except ValueError as error:
        raise CheckpointError(f"{path} is not a configuration of an adapter ({error}): fetch it again") from error
    return config


@dataclass(frozen=True)
class Unfit:
    """Why an adapter is not s·B A on the base as it is on disk.

    Arguments:
        what: what it is.
        merges: where it can be merged instead: ``peft``, ``training`` (only where it was trained) or ``never``.
    """

    what: str
    merges: str = "peft"


def unsupported(config: Mapping[str, Any]) -> Unfit | None:
    """What an adapter is, where its change is not s·B A on the base as it is on disk; None for plain LoRA.

    Arguments:
        config: of `read_config`.
    """
    kind = config.get("peft_type")
    if str(kind).upper() != "LORA":
        what = f"an adapter of type {kind}" if kind else "an adapter whose configuration names no peft_type"
        return Unfit(what, "never" if str(kind).upper() in _NEVER else "peft")
    for name, words in _CHANGING.items():
        if config.get(name):
            return Unfit(words, "never" if name in _NEVER else "peft")
    start = config.get("init_lora_weights")
    for name, words in _MOVING.items():
        if isinstance(start, str) and start.lower().startswith(name):
            what = (
                f"LoRA begun by {words} (init_lora_weights={start!r}), which moved a part of the base into the factors"
            )
            return Unfit(what, "training")
    if odd := [name for name, value in config.items() if value and name not in _NEUTRAL and name not in _CHANGING]:
        return Unfit(f"LoRA with {', '.join(map(repr, odd))} in its {CONFIG}, which this release does not know")
    return None


def settings(config: Mapping[str, Any], path: Path) -> LoraSettings:
    """The numbers of a LoRA adapter's configuration.

    Arguments:
        config: of `read_config`.
        path: its file, for messages.

    Raises:
        CheckpointError: naming the field and its value, where one is missing or cannot be.
    """
    rank, alpha = config.get("r"), config.get("lora_alpha")
    ranks, alphas = config.get("rank_pattern") or {}, config.get("alpha_pattern") or {}
    for name, patterns in (("rank_pattern", ranks), ("alpha_pattern", alphas)):
        if not isinstance(patterns, Mapping):
            raise CheckpointError(f"{path}: {name} {patterns!r} should map names to numbers")
        for key in patterns:
            try:
                re.compile(f"({key})$")
            except re.error as error:
                raise CheckpointError(f"{path}: {key!r} of {name} is not a regular expression ({error})") from error
    for name, values in (("r", [rank, *ranks.values()]), ("lora_alpha", [alpha, *alphas.values()])):
        for value in values:
            fits = is_number(value) and math.isfinite(value) and (name != "r" or (value > 0 and value == int(value)))
            if not fits:
                wanted = "a whole number of 1 or more" if name == "r" else "a finite number"
                raise CheckpointError(f"{path}: {name} {value!r} should be {wanted}")
    flags = [config.get(name) or False for name in ("use_rslora", "fan_in_fan_out")]
    for name, value in zip(("use_rslora", "fan_in_fan_out"), flags, strict=True):
        if not isinstance(value, bool):
            raise CheckpointError(f"{path}: {name} {value!r} should be true or false")
    return LoraSettings(int(rank), float(alpha), ranks, alphas, *flags)
