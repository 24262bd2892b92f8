"""Which names of tensors are an adapter's, and what they mean."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

_FACTORS = {
    "LoRA": r"lora_(?:A|B|embedding_A|embedding_B|up|down)|lora(?:_linear_layer)?\.(?:up|down)",
    "DoRA": r"lora_magnitude_vector|dora_scale",
    "LoCon with a core tensor": r"lora_mid",
    "AdaLoRA": r"lora_E|ranknum",
    "LoHa": r"hada_[wt][12](?:_[ab])?",
    "LoKr": r"lokr_[wt][12](?:_[ab])?",
    "VeRA": r"vera_(?:A|B|lambda_[bd])",
    "IA3": r"ia3_l",
    "OFT": r"oft_[rR]|oft_blocks",
    "BOFT": r"boft_[RS]",
    "trainable tokens": r"trainable_tokens_delta",
}
_KNOWN = {kind: re.compile(rf"(?:^|[._])(?:{words})(?:[._]|$)") for kind, words in _FACTORS.items()}
_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
_PEFT = "base_model.model."
_PARTS = (
    # peft: lora_A.weight, lora_A.NAME.weight, lora_embedding_A, lora_embedding_A.NAME
    re.compile(r"(?P<module>.+)\.lora_(?P<part>[AB])(?:\.(?P<adapter>[^.]+))?\.(?P<of>weight|bias)"),
    re.compile(r"(?P<module>.+)\.lora_(?P<part>embedding_[AB])(?:\.(?P<adapter>[^.]+))?"),
    # kohya, and diffusers before it took peft's names
    re.compile(r"(?P<module>.+)\.lora_(?P<part>down|up)\.(?P<of>weight)"),
    re.compile(r"(?P<module>.+)\.lora(?:_linear_layer)?\.(?P<part>down|up)\.(?P<of>weight)"),
    re.compile(r"(?P<module>.+)\.(?P<part>alpha)"),
)
_PART = {"A": "a", "down": "a", "embedding_A": "a", "B": "b", "up": "b", "embedding_B": "b", "alpha": "alpha"}
_SAVED = ".modules_to_save."


def adapter_kinds(names: Iterable[str]) -> tuple[str, ...]:
    """Kinds of adapters that names of tensors speak of, such as ``LoRA``; none for a model."""
    names = list(names)
    return tuple(kind for kind, known in _KNOWN.items() if any(known.search(name) for name in names))


def unmerged(names: Iterable[str]) -> bool:
    """Whether names with factors among them are those of a whole peft model: it has the weights below the factors too.

    Of embeddings and heads, peft keeps copies in files of adapters.
    """
    ends = (".base_layer.weight", ".base_layer.in_proj_weight")
    below = [f".{name}".partition(".base_layer.")[0] for name in names if f".{name}".endswith(ends)]
    return any(module.rpartition(".")[2] not in ("embed_tokens", "lm_head") for module in below)


def refusal(names: Iterable[str], owner: str) -> str | None:
    """Why tensors are not a model to merge, with the mend; None where no name is an adapter's.

    Arguments:
        names: of the tensors.
        owner: whose they are, for the message.
    """
    names = list(names)
    kinds = adapter_kinds(names)
    if not kinds:
        return None
    first = next(name for name in names if any(_KNOWN[kind].search(name) for kind in kinds))
    what = "/".join(kinds)
    if unmerged(names):
        return (
            f"{owner} is a model with {what} adapters beside its weights ({first!r}), not merged into them: call "
            f"merge_and_unload() of the peft model, save what it returns, and give that"
        )
    return (
        f"{owner} is an adapter ({what}: {first!r}), not a model, and its factors cannot be merged by themselves: give "
        f"the base that it changes and the adapter's folder, --pretrained BASE --expert NAME=FOLDER (in Python: "
        f"am.load_adapter(FOLDER, BASE) is the expert)"
    )


@dataclass
class Module:
    """Names of the tensors that an adapter has for one module of the base.

    Arguments:
        name: the module, as the adapter calls it.
        a, b: names of the factors A ``[r, …]`` and B ``[…, r]``.
        bias: of what B adds to the bias.
        alpha: of the number α, in files of kohya.
        embedding: whether the factors are those of an embedding, which are transposed.
        style: ``peft`` or ``kohya``.
    """

    name: str
    a: str = ""
    b: str = ""
    bias: str = ""
    alpha: str = ""
    embedding: bool = False
    style: str = "peft"


@dataclass
class Contents:
    """The names of an adapter's tensors, read.

    Arguments:
        modules: module → its factors.
        whole: name in the base → name of the tensor that takes its place (modules to save, biases).
        adapters: names of adapters within the names; one at most in a file that can be read.
        odd: factors without the other one.
        twice: factors that stand there under two names.
    """

    modules: dict[str, Module] = field(default_factory=dict)
    whole: dict[str, str] = field(default_factory=dict)
    adapters: set[str] = field(default_factory=set)
    odd: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)


def plain(name: str) -> str:
    """A name without what peft, torch.compile and FSDP put before and within it."""
    name = ".".join(part for part in name.split(".") if part not in _WRAPPERS)
    return name.removeprefix("module.").removeprefix(_PEFT)


def read_names(names: Iterable[str]) -> Contents:
    """What the tensors of an adapter are, by their names.

    Arguments:
        names: as in its file.
    """
    found = Contents()
    saved: dict[str, str] = {}
    for name in names:
        own = plain(name)
        match = next((match for pattern in _PARTS if (match := pattern.fullmatch(own))), None)
        if match:
            _enter(found, name, match.groupdict())
        elif _SAVED in own:
            saved[own] = name
        elif ".original_module." not in own:  # the base's own tensor, of which peft keeps a copy
            found.whole[own] = name
    for own, name in saved.items():
        _enter_saved(found, name, own)
    for module in list(found.modules.values()):
        if module.alpha and not (module.a or module.b):
            del found.modules[module.name]
            found.whole[plain(module.alpha)] = module.alpha  # a parameter of the base that is called alpha
        elif not (module.a and module.b):
            found.odd.append(module.a or module.b or module.bias)
    return found


def _enter(found: Contents, name: str, parts: dict[str, str | None]) -> None:
    module = found.modules.setdefault(parts["module"], Module(parts["module"]))
    if adapter := parts.get("adapter"):
        found.adapters.add(adapter)
    slot = "bias" if parts.get("of") == "bias" else _PART[parts["part"]]
    if getattr(module, slot):
        found.twice.append(name)
    setattr(module, slot, name)
    module.embedding |= parts["part"].startswith("embedding")
    if parts["part"] in ("down", "up"):
        module.style = "kohya"


def _enter_saved(found: Contents, name: str, own: str) -> None:
    """A tensor of a module to save, marked as such, with or without the adapter's name behind the mark."""
    module, _, rest = own.partition(_SAVED)
    adapter, _, inner = rest.partition(".")
    names = [f"{module}.{rest}", *([f"{module}.{inner}"] if inner else [])]
    if not any(name in found.whole for name in names):  # peft may save both
        found.whole[names[-1] if adapter in {"default", *found.adapters} else names[0]] = name
