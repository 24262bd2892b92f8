"""Adapters as experts: θ_k = θ0 + ΔW, with ΔW = s·B A per module, tensor by tensor."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..files.checkpoint import CheckpointFile
from ..runtime.places import given
from ..state import CheckpointError, StateDict, accumulation_dtype, is_merged, sha256
from .names import Module
from .orientation import Orientation
from .places import Prefix, find_weight, fit, flattened, without_wrappers
from .source import AdapterSource, PathLike, open_adapter, problem_of, scale_of, settings_of, times
from .ties import twins


@dataclass(frozen=True)
class Product:
    """ΔW = s·B A of one tensor.

    Arguments:
        module: names of the factors.
        scale: s.
        transposed: whether the base stores ``[in, out]``, as embeddings and GPT-2's Conv1D do.
        shape: of the base's tensor.
    """

    module: Module
    scale: float
    transposed: bool
    shape: torch.Size

    def factors(self, tensors: StateDict, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """s·B ``[out, r]`` and A ``[r, in]`` (kernels of convolutions flattened)."""
        a, b = (tensors[name].to(dtype).flatten(1) for name in (self.module.a, self.module.b))
        return self.scale * b, a

    def matrices(self, tensors: StateDict, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """``[m, r]`` and ``[r, n]`` whose product, reshaped, is ΔW of the base's shape."""
        b, a = self.factors(tensors, dtype)
        return (a.T, b.T) if self.transposed else (b, a)

    def delta(self, tensors: StateDict, dtype: torch.dtype) -> Tensor:
        """ΔW, of the base's shape."""
        left, right = self.matrices(tensors, dtype)
        return (left @ right).reshape(self.shape)


@dataclass
class Change:
    """What an adapter does to one tensor of the base.

    Arguments:
        whole: name of the tensor that replaces it first; empty for none.
        products: ΔW to add.
        bias: name of what is added to a bias; empty for none.
        scale: times which ``bias`` is added.
    """

    whole: str = ""
    products: list[Product] = field(default_factory=list)
    bias: str = ""
    scale: float = 1.0


def _copy(module: str) -> str:
    return f"{module}.base_layer.weight"


class AdapterExpert(Mapping[str, Tensor]):
    """The state dict θ_k of a base with an adapter, whose tensors are made anew each time they are asked for.

    ``expert[key]`` is θ0 + ΔW in θ0's dtype, rounded once. Half precision may round most of ΔW away, so task vectors
    are taken from `difference`, which is ΔW itself, in float32.

    Arguments:
        source: the adapter.
        base: θ0.

    Raises:
        CheckpointError: the adapter is not a plain LoRA, or not of this base; names file, tensor and what to do.
    """

    def __init__(self, source: AdapterSource, base: StateDict) -> None:
        if problem := problem_of(source):
            raise CheckpointError(problem)
        self.source, self.base = source, base
        self.path, self.files, self.metadata = source.path, source.files, dict(source.metadata)
        self.changes: dict[str, Change] = {}
        """Name in the base → what the adapter does to it."""
        self.names: dict[str, str] = {}
        """Name in the base → the adapter's own name of it, for every tensor that it changes."""
        self.warnings: list[str] = []
        """What looks odd, as sentences."""
        known = getattr(base, "layout", base)
        places, self.prefix = self._places(known)
        self._place_factors(known, places)
        self._place_whole(known)
        self._follow_ties(known)
        self.layout: dict[str, Tensor] = {key: t.to("meta") for key, t in known.items()}
        """Name → tensor on ``meta``: shape and dtype, in the base's order; what only the adapter has comes last."""
        for key, change in self.changes.items():
            if change.whole:
                own = source.layout[change.whole]
                self.layout[key] = own.to(self.layout[key].dtype) if key in known and is_merged(own) else own

    def _places(self, known: Mapping[str, Tensor]) -> tuple[dict[str, str], Prefix]:
        """The adapter's name of every module with factors → the base's, and what its other names begin with."""
        source, modules = self.source, self.source.contents.modules
        flat = {name: m for name, m in modules.items() if name.startswith("lora_") and "." not in name}
        dotted = {name: without_wrappers(name) for name in modules if name not in flat}
        # An embedding or head of which peft saved a copy can be one that the base does not store, being tied.
        needed = [own for name, own in dotted.items() if _copy(name) not in source.contents.whole]
        prefix = fit(needed or dotted.values(), known, source.path) if dotted else Prefix()
        places = flattened(flat, known, source.path)
        return places | {name: prefix(own) or own for name, own in dotted.items()}, prefix

    def _place_factors(self, known: Mapping[str, Tensor], places: Mapping[str, str]) -> None:
        source = self.source
        numbers = settings_of(source)
        stored = Orientation(known, numbers is not None and numbers.fan_in_fan_out)
        found: list[tuple[str, Module, str, torch.Size]] = []
        for name, module in source.contents.modules.items():
            key = find_weight(places[name], known)
            if key is not None:
                shape = self._checked(known[key], key)
            elif _copy(name) in source.contents.whole:
                key, shape = f"{places[name]}.weight", source.layout[source.contents.whole[_copy(name)]].shape
            else:
                raise CheckpointError(f"{source.path} changes {name!r}, which the base does not have: give its base")
            found.append((name, module, key, shape))
            if not module.embedding:
                stored.learn(key, shape, *self._sides(module))
        for name, module, key, shape in found:
            transposed = module.embedding or stored.transposed(key, shape, *self._sides(module), source.path)
            self._check_fit(key, shape, module, transposed)
            scale = scale_of(source, module, numbers)
            self.changes.setdefault(key, Change()).products.append(Product(module, scale, transposed, shape))
            self.names[key] = name
            if module.bias and not key.endswith(".in_proj_weight"):  # of attention, peft leaves it out
                self._add_bias(f"{places[name]}.bias", name, module, scale / times(name), known)

    def _checked(self, tensor: Tensor, key: str) -> torch.Size:
        if not is_merged(tensor) or tensor.itemsize == 1:
            raise CheckpointError(
                f"{key!r} of the base is {tensor.dtype}, a quantised weight, which {self.path} changes: give the base "
                f"in floating point, as it was before it was quantised"
            )
        return tensor.shape

    def _sides(self, module: Module) -> tuple[int, int]:
        """Rows of B and columns of A; CheckpointError where they are not two factors."""
        a, b = self.source.layout[module.a], self.source.layout[module.b]
        if not (is_merged(a) and is_merged(b)):
            raise CheckpointError(
                f"{module.a!r} and {module.b!r} of {self.path} are {a.dtype} and {b.dtype}: give the adapter as it was "
                f"before its factors were quantised"
            )
        if a.dim() < 2 or b.dim() < 2 or not (a.numel() and b.numel()):
            raise CheckpointError(
                f"{module.a!r} {list(a.shape)} and {module.b!r} {list(b.shape)} of {self.path} are not two factors: "
                f"save it again, with the model's parts gathered (ZeRO-3, FSDP)"
            )
        return b.shape[0], a.shape[1]

    def _check_fit(self, key: str, shape: torch.Size, module: Module, transposed: bool) -> None:
        a, b = self.source.layout[module.a].shape, self.source.layout[module.b].shape
        if len(shape) > 2 and len(shape) == len(a) and b[0] == shape[0] and (b[1] != a[0] or a[1] != shape[1]):
            raise CheckpointError(
                f"{key!r} {list(shape)} is a convolution in groups: what {self.path} adds to it is not a kernel of "
                f"that shape, and peft cannot merge it either. Train the adapter without that module"
            )
        whole = (a[1], b[0]) if transposed else (b[0], *a[1:])
        if b[1] != a[0] or any(side != 1 for side in b[2:]) or tuple(shape) != whole:
            raise CheckpointError(
                f"{module.a!r} {list(a)} and {module.b!r} {list(b)} of {self.path} make no change of {key!r} "
                f"{list(shape)}: give the base that the adapter was trained on"
            )

    def _add_bias(self, key: str, name: str, module: Module, scale: float, known: Mapping[str, Tensor]) -> None:
        own = self.source.layout[module.bias]
        if key not in known or known[key].shape != own.shape:
            there = f"is {list(known[key].shape)}" if key in known else "does not exist"
            raise CheckpointError(
                f"{self.path} adds {module.bias!r} {list(own.shape)} to a bias of the base that {there}: peft cannot "
                f"merge it either. Give the base that the adapter was trained on, with a bias there (of zeros)"
            )
        change = self.changes.setdefault(key, Change())
        change.bias, change.scale = module.bias, scale
        self.names[key] = f"{name}.bias"

    def _place_whole(self, known: Mapping[str, Tensor]) -> None:
        for own, name in self.source.contents.whole.items():
            bare = without_wrappers(own)
            choices = (own, self.prefix(own), bare, self.prefix(bare))
            # What no name of the base fits is the adapter's own: a head, say. It is shown as any expert's would be.
            private = bare if self.prefix.new else (choices[3] or bare)
            key = next((choice for choice in choices if choice in known), private)
            self.changes.setdefault(key, Change()).whole = name
            self.names.setdefault(key, own.removesuffix(".weight"))

    def _follow_ties(self, known: Mapping[str, Tensor]) -> None:
        """peft's merge changes the one tensor that embedding and head share; a file may hold it twice."""
        self.tied: dict[str, str] = {}
        """Name → changed tensor that the base ties it to."""
        for key, twin in twins(self.base, known, [key for key, change in self.changes.items() if change.products]):
            if twin not in self.changes:
                self.changes[twin], self.tied[twin] = self.changes[key], key
                self.warnings.append(
                    f"{self.path} changes {key!r}, to which {twin!r} is equal in the base (tied): the change is made "
                    f"to both, as in peft's merge_and_unload"
                )

    def __getitem__(self, key: str) -> Tensor:
        change = self.changes.get(key)
        if change is None:
            return self.base[key]
        dtype = self.layout[key].dtype
        whole = self.source.tensors[change.whole] if change.whole else self.base[key].detach()
        added = self._added(change, accumulation_dtype(dtype))
        return whole.to(dtype) if added is None else (whole.to(added.dtype) + added.to(whole.device)).to(dtype)

    def difference(self, key: str) -> Tensor | None:
        """θ_k − θ0 of a tensor, in float32 (float64 for float64), without the rounding of θ_k; None where it is zero.

        Arguments:
            key: of a floating-point tensor that the base has.
        """
        change = self.changes.get(key)
        if change is None:
            return None
        dtype = accumulation_dtype(self.layout[key].dtype)
        added = self._added(change, dtype)
        if change.whole:
            own = self.source.tensors[change.whole].to(dtype) - self.base[key].detach().to("cpu", dtype)
            return own if added is None else own + added
        return added

    def _added(self, change: Change, dtype: torch.dtype) -> Tensor | None:
        parts = [product.delta(self.source.tensors, dtype) for product in change.products]
        if change.bias:
            parts.append(change.scale * self.source.tensors[change.bias].to(dtype))
        return sum(parts[1:], parts[0]) if parts else None

    def __contains__(self, key: object) -> bool:  # Mapping's own would make the tensor
        return key in self.layout

    def __iter__(self) -> Iterator[str]:
        return iter(self.layout)

    def __len__(self) -> int:
        return len(self.layout)

    def digests(self) -> dict[str, str]:
        """File name → SHA-256, the configuration's too."""
        return {file.name: sha256(file) for file in self.files}


def load_adapter(path: PathLike, base: StateDict | PathLike) -> AdapterExpert:
    """Return the state dict of a base with an adapter, ready to be merged or loaded into a model.

    Arguments:
        path: folder of the adapter (peft), or its file of weights.
        base: state dict of the base, or its file or folder.

    Returns:
        Name → θ0 + s·B A, made when asked for, in the base's order and dtypes. Task vectors of it are s·B A itself.

    Raises:
        CheckpointError: the adapter is not a plain LoRA, or not of this base; names file, tensor and what to do.

    Example:
        >>> expert = am.load_adapter("cars_lora", base="base.safetensors")
        >>> tv = am.TaskVectors.from_state_dicts(am.state.load("base.safetensors"), {"cars": expert})
        >>> tv.vectors["blocks.0.mlp.weight"].shape
        torch.Size([1, 4, 4])
    """
    if not isinstance(base, Mapping):
        base = CheckpointFile(given(base))
    expert = AdapterExpert(open_adapter(path), base)
    for warning in expert.warnings:
        warnings.warn(warning, stacklevel=2)
    return expert
