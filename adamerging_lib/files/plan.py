"""What merging checkpoint files would do, and whether it can be done, from the headers of the files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..methods.registry import Method, find, hyper_parameters
from ..runtime.values import check
from ..state import check_state_dicts, is_merged
from .checkpoint import CheckpointFile, check_room
from .experts import Expert, open_base, open_expert

SUFFIX = ".safetensors"
_TASK = re.compile(r"[\w-][\w.-]*")
PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Plan:
    """A merge that could be done: everything checked that file headers tell, nothing read, nothing written.

    Arguments:
        method: the method.
        hyper: all its hyper-parameters.
        pretrained: θ0.
        experts: task name → θ_k.
        outputs: task → file to write, or None → file where one model serves all tasks.
        replaces: outputs that exist.
    """

    method: Method
    hyper: Mapping[str, Any]
    pretrained: CheckpointFile
    experts: Mapping[str, Expert]
    outputs: Mapping[str | None, Path]
    replaces: tuple[Path, ...]

    @property
    def size(self) -> int:
        """Bytes of one output, but for its header."""
        return sum(t.nbytes for t in self.pretrained.layout.values())

    @property
    def merged(self) -> set[str]:
        """Names of the tensors that are merged; the others are copied from θ0."""
        return {key for key, t in self.pretrained.layout.items() if is_merged(t)}

    @property
    def parameters(self) -> int:
        """P: numbers that are merged."""
        return sum(self.pretrained.layout[key].numel() for key in self.merged)

    @property
    def memory(self) -> int:
        """About how many bytes merging will take: of every model the largest tensor, or all of it, three times."""
        held = (
            max(self.pretrained.layout[key].numel() for key in self.merged) if self.method.streams else self.parameters
        )
        return 4 * 3 * (len(self.experts) + 1) * held


def plan_merge(
    method: str,
    pretrained: PathLike,
    experts: Mapping[str, PathLike] | Iterable[tuple[str, PathLike]],
    out: PathLike,
    *,
    force: bool = False,
    **hyper: Any,
) -> Plan:
    """Check a merge of files before anything is read: method, hyper-parameters, headers, output, room on the disk.

    Arguments:
        method: id of a method that needs nothing but checkpoints.
        pretrained: file of θ0: safetensors, in one file or several.
        experts: task name → file of θ_k, or folder of a LoRA adapter of θ0; or (name, file) pairs.
        out: the ``.safetensors`` file to write; of a method with task-specific weights, the folder of one file a task.
        force: whether an output that exists is replaced.
        hyper: the method's keyword arguments.

    Returns:
        The plan, for `execute_merge`.

    Raises:
        ValueError: naming what does not fit, and the mend.
    """
    found = find(method)
    if found.takes != "task_vectors":
        needed = "no merging: it is a reference point" if found.needs == "nothing" else found.needs
        raise ValueError(
            f"{method} cannot be made from checkpoint files alone (needs: {needed}); it is for a suite of encoder, "
            f"heads and images, in Python: am.run_method({method!r}, suite), as in notebooks/performance.ipynb"
        )
    known = hyper_parameters(found)
    check(method, known, hyper)
    base, tuned = open_base(pretrained), {}
    for task, path in experts.items() if isinstance(experts, Mapping) else experts:
        if not _TASK.fullmatch(task):
            raise ValueError(f"name {task!r} of expert {path} should be letters, digits, '_', '-' and '.'")
        if task in tuned:
            raise ValueError(f"two experts are named {task!r}: name every expert differently")
        tuned[task] = open_expert(path, base)
        for other, file in tuned.items():
            if other != task and _shared_file(file, tuned[task]):
                raise ValueError(f"experts {other!r} and {task!r} are the same file {path}: give it once")
    check_state_dicts(base.layout, {task: file.layout for task, file in tuned.items()})
    if not any(is_merged(t) for t in base.layout.values()):
        raise ValueError(f"{base.path} has no floating-point tensor: there is nothing to merge")
    outputs = _outputs(found, Path(out), tuple(tuned))
    inputs = {"pretrained": base, **{f"expert {task!r}": file for task, file in tuned.items()}}
    for path in outputs.values():
        for name, file in inputs.items():
            if path.exists() and any(path.samefile(part) for part in file.files):
                raise ValueError(f"{path} is the file of {name} and is never replaced: choose another output")
    replaces = tuple(path for path in outputs.values() if path.exists())
    if replaces and not force:
        raise ValueError(f"{replaces[0]} exists: choose another output, or replace it with --force (force=True)")
    defaults = {name: parameter.default for name, parameter in known.items()}
    plan = Plan(found, {**defaults, **hyper}, base, tuned, outputs, replaces)
    check_room(out, plan.size * len(outputs))
    return plan


def _outputs(method: Method, out: Path, tasks: tuple[str, ...]) -> dict[str | None, Path]:
    if not method.task_id:
        if out.suffix != SUFFIX or out.is_dir():
            raise ValueError(f"output {out} should be a file *{SUFFIX}")
        return {None: out}
    if out.suffix or out.is_file():
        raise ValueError(
            f"{method.id} keeps one encoder a task: give a folder as output, such as {out.with_suffix('')}, "
            f"for {', '.join(task + SUFFIX for task in tasks)}"
        )
    return {task: out / f"{task}{SUFFIX}" for task in tasks}


def _shared_file(one: Expert, other: Expert) -> bool:
    return any(a.samefile(b) for a in one.files for b in other.files)
