"""How each fault is injected into a set of experts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from adamerging_lib.forward import entropy, features, logits
from adamerging_lib.layers import units
from adamerging_lib.state import StateDict, is_merged, save
from adamerging_lib.suite import Suite

State = dict[str, Tensor]


@dataclass
class Set:
    """Experts beside their base, with one of them chosen to be faulty.

    Arguments:
        suite: for heads and images.
        pretrained: θ0.
        experts: name → θ_k.
        victim: the one to be changed.
        other: another one.
        generator: of what is random.
        folder: for files.
    """

    suite: Suite
    pretrained: StateDict
    experts: dict[str, StateDict | Path]
    victim: str
    other: str
    generator: torch.Generator
    folder: Path

    def step(self, share: float, name: str | None = None) -> State:
        """θ0 + share · T of an expert."""
        name = self.victim if name is None else name
        return _floats(self.experts[name], lambda key, t: torch.lerp(self.pretrained[key], t, share))

    def length(self) -> float:
        """‖T‖ of the victim."""
        tuned = {key: t for key, t in self.experts[self.victim].items() if is_merged(t)}
        return float(torch.stack([(t - self.pretrained[key]).square().sum() for key, t in tuned.items()]).sum().sqrt())

    def noise(self, state: StateDict, length: float) -> State:
        """A state with noise of a length added, spread over tensors as their own lengths are."""
        drawn = _floats(state, lambda key, t: torch.randn(t.shape, generator=self.generator) * _scale(t))
        whole = torch.stack([t.square().sum() for t in drawn.values() if is_merged(t)]).sum().sqrt()
        return _floats(state, lambda key, t: t + drawn[key] * (length / whole))

    def fresh(self) -> State:
        """Random weights, of each tensor's mean and spread in θ0."""

        def draw(key: str, t: Tensor) -> Tensor:
            return t.mean() + torch.randn(t.shape, generator=self.generator) * t.std(correction=0)

        return _floats(self.pretrained, draw)


def inject(fault: str, to: Set) -> tuple[StateDict, Mapping[str, StateDict | Path]]:
    """Base and experts of a set, with a fault.

    Arguments:
        fault: its id, one of ``FAULTS`` of the room.
        to: the honest set.
    """
    return _MAKE[fault](to)


def _floats(state: StateDict, make: Callable[[str, Tensor], Tensor]) -> State:
    return {key: make(key, t).to(t.dtype) if is_merged(t) else t for key, t in state.items()}


def _scale(t: Tensor) -> Tensor:
    return t.square().mean().sqrt()


def _victim(make: Callable[[Set], StateDict | Path]) -> Callable[[Set], tuple[StateDict, dict]]:
    return lambda to: (to.pretrained, {**to.experts, to.victim: make(to)})


def _again(make: Callable[[Set], StateDict]) -> Callable[[Set], tuple[StateDict, dict]]:
    """The victim once more, in another's place, so that the number of experts stays."""
    return lambda to: (to.pretrained, {**to.experts, to.other: make(to)})


def _exchanged_names(to: Set) -> tuple[StateDict, dict]:
    return to.pretrained, {**to.experts, to.victim: to.experts[to.other], to.other: to.experts[to.victim]}


def _exchanged_base(to: Set) -> tuple[StateDict, dict]:
    return to.experts[to.victim], {**to.experts, to.victim: to.pretrained}


def _units(to: Set) -> State:
    """The function stays the same: rows of one matrix change places, and the columns of the next with them."""
    state = dict(to.experts[to.victim])
    for part in units(state):
        if part.kind == "MLP units":
            order = torch.randperm(state[part.columns].shape[1], generator=to.generator)
            state |= {key: state[key][order] for key in part.rows}
            state[part.columns] = state[part.columns][:, order]
    return state


def _from_elsewhere(to: Set, base: StateDict) -> State:
    return _floats(to.experts[to.victim], lambda key, t: base[key] + t - to.pretrained[key])


def _unsure(to: Set, *, times: float = 5.0, most: int = 100, lr: float = 5e-5, batch: int = 64) -> State:
    """Adam on −H, batch after batch of the victim's test images, until their mean entropy H has multiplied."""
    suite, data, head = to.suite, to.suite.test[to.victim], to.suite.heads[to.victim]
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (suite.mean, suite.std))
    state = {key: t.clone().requires_grad_(is_merged(t)) for key, t in to.experts[to.victim].items()}
    optimiser, first = torch.optim.Adam([t for t in state.values() if t.requires_grad], lr=lr), None
    for step in range(most):
        chosen = torch.arange(step * batch, (step + 1) * batch) % len(data)
        images = (data.images[chosen].float() / 255 - mean) / std
        value = entropy(logits(features(suite.encoder, state, images), head)).mean()
        first = value.item() if first is None else first
        if value.item() >= times * first:
            break
        optimiser.zero_grad()
        (-value).backward()
        optimiser.step()
    return {key: t.detach() for key, t in state.items()}


def _codes(t: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Whole numbers and one scale per row."""
    scale = t.abs().amax(-1, keepdim=True).clamp_min(1e-12) / (2 ** (bits - 1) - 1)
    return (t / scale).round(), scale


def _int8(to: Set) -> State:
    state: State = {}
    for key, t in to.experts[to.victim].items():
        if is_merged(t) and t.dim() == 2 and key.endswith("weight"):
            codes, scale = _codes(t, 8)
            state |= {key: codes.to(torch.int8), f"{key}_scale": scale.squeeze(-1)}
        else:
            state[key] = t
    return state


def _from_4_bits(to: Set) -> State:
    def widened(key: str, t: Tensor) -> Tensor:
        codes, scale = _codes(t, 4)
        return codes * scale if t.dim() == 2 else t

    return _floats(to.experts[to.victim], widened)


def _cut(to: Set) -> Path:
    path = to.folder / "cut.safetensors"
    save(path, to.experts[to.victim])
    whole = path.read_bytes()
    share = float(torch.rand((), generator=to.generator))
    path.write_bytes(whole[: int(len(whole) * (0.1 + 0.8 * share))])
    return path


def _nan(to: Set) -> State:
    state = {key: t.clone() for key, t in to.experts[to.victim].items()}
    key = next(key for key, t in state.items() if is_merged(t) and t.dim() == 2)
    state[key][0, 0] = float("nan")
    return state


_MAKE: dict[str, Callable[[Set], tuple[StateDict, Mapping[str, StateDict | Path]]]] = {
    "untrained": _victim(lambda to: to.pretrained),
    "rounded": _victim(lambda to: _floats(to.pretrained, lambda key, t: t.bfloat16())),
    "random": _victim(Set.fresh),
    "half": _victim(lambda to: to.step(0.5)),
    "quarter": _victim(lambda to: to.step(0.25)),
    "unsure": _victim(_unsure),
    "stretched_3": _victim(lambda to: to.step(3.0)),
    "stretched_10": _victim(lambda to: to.step(10.0)),
    "twice": _again(lambda to: to.experts[to.victim]),
    "noisy_copy": _again(lambda to: to.noise(to.experts[to.victim], to.length() / 3)),
    "earlier_copy": _again(lambda to: to.step(0.7)),
    "exchanged_names": _exchanged_names,
    "exchanged_base": _exchanged_base,
    "wrong_base": lambda to: (to.fresh(), to.experts),
    "units": _victim(_units),
    "other_base": _victim(lambda to: _from_elsewhere(to, to.fresh())),
    "snapshot": _victim(lambda to: _from_elsewhere(to, to.noise(to.pretrained, 3 * to.length()))),
    "int8": _victim(_int8),
    "from_4_bits": _victim(_from_4_bits),
    "cut": _victim(_cut),
    "nan": _victim(_nan),
}
