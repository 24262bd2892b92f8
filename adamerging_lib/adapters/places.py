"""Where in a base the modules of an adapter are: prefixes that only one of the two has, names without their dots."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..runtime.values import few
from ..state import CheckpointError
from .names import Module

_WEIGHTS = ("weight", "in_proj_weight")  # the second of torch's MultiheadAttention
_BASE_LAYER = ".base_layer"


@dataclass(frozen=True)
class Prefix:
    """How names of an adapter become names of a base.

    Arguments:
        gone: what is taken off the front.
        new: what is put there.
    """

    gone: str = ""
    new: str = ""

    def __call__(self, name: str) -> str | None:
        """The base's name; None where the adapter's does not begin as it should."""
        return self.new + name.removeprefix(self.gone) if name.startswith(self.gone) else None


def without_wrappers(name: str) -> str:
    """A name without peft's ``base_layer``, which stands between a module and what was there before."""
    return name.replace(f"{_BASE_LAYER}.", ".")


def find_weight(module: str, base: Mapping[str, object]) -> str | None:
    """The tensor of the base that a module's factors change."""
    return next((f"{module}.{end}" for end in _WEIGHTS if f"{module}.{end}" in base), None)


def fit(modules: Iterable[str], base: Mapping[str, object], owner: object) -> Prefix:
    """The one prefix under which every module of an adapter is found in the base.

    Arguments:
        modules: names, without wrappers.
        base: its names.
        owner: of the adapter, for messages.

    Raises:
        CheckpointError: naming modules that the base lacks, or two prefixes that both fit.
    """
    modules = list(modules)

    def lacking(prefix: Prefix) -> list[str]:
        return [m for m in modules if (name := prefix(m)) is None or find_weight(name, base) is None]

    missing = lacking(Prefix())
    if not missing:
        return Prefix()
    found = [prefix for prefix in _candidates(missing[0], base) if not lacking(prefix)]
    if len(found) > 1:
        raise CheckpointError(
            f"{owner} fits two places of the base: {modules[0]!r} can be {found[0](modules[0])!r} or "
            f"{found[1](modules[0])!r}; rename its tensors so that they begin as the base's do"
        )
    if not found:
        raise CheckpointError(_absent(missing, base, owner))
    return found[0]


def _candidates(module: str, base: Iterable[str]) -> list[Prefix]:
    parts = module.split(".")
    shorter = [Prefix(gone=".".join(parts[:n]) + ".") for n in range(1, len(parts))]
    ends = tuple(f".{module}.{end}" for end in _WEIGHTS)
    longer = {name[: name.rindex(f".{module}.") + 1]: None for name in base if name.endswith(ends)}
    return [*shorter, *(Prefix(new=new) for new in longer)]


def _absent(missing: list[str], base: Mapping[str, object], owner: object) -> str:
    packed = next((name for m in missing for name in (f"{m}.qweight", f"{m}.weight_packed") if name in base), None)
    if packed:
        return (
            f"the base is quantised ({packed!r}), and {owner} changes that weight: give the base in floating point, "
            f"as it was before it was quantised"
        )
    names = [name.rpartition(".")[0] for name in base if name.endswith(_WEIGHTS)]
    return (
        f"{owner} changes {few(missing)}, which the base does not have; it has {few(names)}: give the base that it was "
        f"trained on, with its head if the adapter changes that"
    )


def flattened(modules: Mapping[str, Module], base: Mapping[str, object], owner: object) -> dict[str, str]:
    """Module of a kohya file, whose names have ``_`` for dots, → module of the base.

    Raises:
        CheckpointError: a name that no module of the base has, or that two have.
    """
    known: dict[str, set[str]] = {}
    for name in base:
        if name.endswith(_WEIGHTS):
            module = name.rpartition(".")[0]
            known.setdefault(module.replace(".", "_"), set()).add(module)
    found = {}
    for name in modules:
        # lora_unet_…, lora_te_…, lora_te1_…, lora_transformer_…: the word after lora_ names the model.
        _, _, rest = name.removeprefix("lora_").partition("_")
        places = known.get(rest, known.get(name, set()))
        if len(places) > 1:
            one, other = sorted(places)[:2]
            raise CheckpointError(f"{name!r} of {owner} can be {one!r} or {other!r} of the base: give peft's format")
        if not places:
            raise CheckpointError(
                f"{owner} changes {name!r}, which the base does not have under any name: give the model that it was "
                f"trained on, in the format of diffusers, or convert the adapter to peft's format"
            )
        found[name] = places.pop()
    return found
