"""What `adapt` returns: shared weights, each task's private part, coefficients; saved, loaded, used."""

from __future__ import annotations

import copy
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch import Tensor, nn

from ..coefficients import Coefficients
from ..forward import compute_state
from ..merged import Fit
from ..runtime.values import one_of
from ..state import CheckpointError, load, save
from .template import Logits, default_logits

if TYPE_CHECKING:
    from .explain import Explanation

SCHEMA = 1
KIND = "adamerging adapted model"
SHARED, COEFFICIENTS, ABOUT, PATH = "shared.safetensors", "coefficients.json", "adapted.json", "trajectory.safetensors"
PRIVATE = "private"


@dataclass(frozen=True)
class Adapted(Fit):
    """The result of `adapt`: a merged model, with each task's private part in ``overrides``.

    Arguments:
        template: the module that was given to `adapt`; its weights are not used.
        logits: its output → logits, see `adapt`.
        ties: name → name of the tensor that the module ties it to.
        confidence: task → mean entropy in nats on its data before and after, and the highest possible entropy.

    Example:
        >>> fit = am.adapt(net, base, experts, data=data, private="head.*", steps=2, progress=False)
        >>> cars = fit.model("cars")  # an ordinary module, with the head of this task
        >>> print(fit.coefficients.to_frame().shape)
        (2, 2)
    """

    template: nn.Module = field(default=None, repr=False)
    logits: Logits = default_logits
    ties: Mapping[str, str] = field(default_factory=dict)
    confidence: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def state_dict(self, task: str | None = None) -> dict[str, Tensor]:
        """The state dict of the model for a task; without one, what all tasks share.

        Raises:
            ValueError: for an unknown task.
        """
        if task is not None:
            one_of("task", task, self.tasks)
        state = super().state_dict(task)
        state |= {name: state[home] for name, home in self.ties.items() if home in state}
        return {name: state[name] for name in self.template.state_dict() if name in state}

    def model(self, task: str) -> nn.Module:
        """Return a copy of the template with the weights for a task, in evaluation mode.

        Raises:
            ValueError: for an unknown task.
        """
        return filled(self.template, compute_state(self.state_dict(task), torch.device("cpu")), self.ties)

    def explain(self) -> Explanation:
        """Explain what was learned: in words (print it), as a table, or as a heatmap."""
        from .explain import explained

        return explained(self)

    def save(self, folder: str | os.PathLike[str], *, force: bool = False) -> Path:
        """Write everything into a folder, all or nothing; `load_adapted` reads it.

        Arguments:
            folder: to be created, with ``shared.safetensors``, ``private/TASK.safetensors``, ``coefficients.json``,
                ``trajectory.safetensors``, and ``adapted.json`` with what was done.
            force: replace a folder that an earlier call wrote.

        Raises:
            ValueError: something is there that must not be replaced.
        """
        folder = Path(folder)
        check_free(folder, force)
        folder.absolute().parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=folder.absolute().parent, prefix=f".{folder.name}."))
        try:
            made.chmod(0o755)
            self._write(made)
            if folder.exists():
                shutil.rmtree(folder)
            os.replace(made, folder)
        finally:
            shutil.rmtree(made, ignore_errors=True)
        return folder

    def _write(self, folder: Path) -> None:
        save(folder / SHARED, self.state, {"format": "pt", "method": self.method})
        for task in self.tasks:
            if own := (self.overrides or {}).get(task):
                save(folder / PRIVATE / f"{task}.safetensors", own, {"format": "pt", "task": task})
        self.coefficients.save(folder / COEFFICIENTS)
        save(folder / PATH, {"trajectory": self.trajectory})
        about = {
            "kind": KIND, "schema": SCHEMA, "method": self.method, "tasks": self.tasks, "hyper": dict(self.hyper),
            "ties": dict(self.ties), "confidence": {t: dict(c) for t, c in self.confidence.items()},
            "history": {column: self.history[column].tolist() for column in self.history},
            "guard": None if self.guard is None else {name: self.guard[name].tolist() for name in self.guard},
            "seconds": self.seconds, "logits": "default" if self.logits is default_logits else "own",
        }  # fmt: skip
        (folder / ABOUT).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def load_adapted(folder: str | os.PathLike[str], model: nn.Module, *, logits: Logits | None = None) -> Adapted:
    """Read what `Adapted.save` wrote.

    Arguments:
        folder: the folder that `Adapted.save` wrote.
        model: the template: the same module as was adapted, with any weights.
        logits: the function that was given to `adapt`, if any.

    Raises:
        CheckpointError: the folder is not one of these, or the model does not fit it.
        ValueError: the model was adapted with ``logits``, and none are given.

    Example:
        >>> fit = am.adapt(net, base, experts, data=data, private="head.*", steps=2, progress=False)
        >>> _ = fit.save("merged")
        >>> am.load_adapted("merged", net).tasks
        ('cars', 'pets')
    """
    folder = Path(folder)
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        if about["kind"] != KIND or about["schema"] != SCHEMA:
            raise ValueError(f"it is {about['kind']!r} of schema {about['schema']!r}")
        tasks = tuple(about["tasks"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{folder} holds no adapted model, {ABOUT} is missing or of another kind: {error}"
        ) from error
    if about["logits"] == "own" and logits is None:
        raise ValueError(f"{folder} was adapted with logits= of its own: give the same function, logits=…")
    files = {task: folder / PRIVATE / f"{task}.safetensors" for task in tasks}
    fit = Adapted(
        load(folder / SHARED), about["method"], about["hyper"], tasks,
        overrides={task: load(path) for task, path in files.items() if path.is_file()} or None,
        coefficients=Coefficients.load(folder / COEFFICIENTS), history=pd.DataFrame(about["history"]),
        trajectory=load(folder / PATH)["trajectory"], seconds=about["seconds"], template=model,
        logits=logits or default_logits, ties=about["ties"], confidence=about["confidence"],
        guard=pd.DataFrame(about["guard"]) if about.get("guard") else None,
    )  # fmt: skip
    names = model.state_dict().keys()
    for task in tasks:
        own = {*fit.state, *(fit.overrides or {}).get(task, {}), *fit.ties}
        if difference := sorted(names ^ own):
            raise CheckpointError(f"{folder} is of another model: {', '.join(difference[:5])} are in one of them only")
    return fit


def check_free(folder: Path, force: bool) -> None:
    """Raise ValueError unless a folder can be written: it does not exist, or is one of these and to be replaced."""
    if not folder.exists():
        return
    if not force:
        raise ValueError(f"{folder} exists: name another folder, or replace it with force=True (--force)")
    if not (folder / ABOUT).is_file():
        raise ValueError(f"{folder} is nothing that this wrote, and is never replaced: name another folder")


def filled(model: nn.Module, state: Mapping[str, Tensor], ties: Mapping[str, str]) -> nn.Module:
    """A copy of a module in evaluation mode with other tensors in it, heads of any size among them."""
    module = copy.deepcopy(model).eval()
    for name, tensor in state.items():
        path, _, last = name.rpartition(".")
        owner = module.get_submodule(path)
        if last in owner._parameters:
            wanted = nn.Parameter(tensor.detach().clone(), requires_grad=owner._parameters[last].requires_grad)
            owner._parameters[last] = wanted
        else:
            owner._buffers[last] = tensor.detach().clone()
        if isinstance(owner, nn.Linear) and last == "weight":
            owner.out_features, owner.in_features = tensor.shape
    for name, home in ties.items():
        (path, _, last), (there, _, first) = name.rpartition("."), home.rpartition(".")
        owner, other = module.get_submodule(path), module.get_submodule(there)
        kind = "_parameters" if last in owner._parameters else "_buffers"
        getattr(owner, kind)[last] = getattr(other, kind)[first]
    return module
