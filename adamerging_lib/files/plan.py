"""What merging checkpoint files would do, and whether it can be done, from the headers of the files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..methods.registry import Method, find, hyper_parameters
from ..runtime.places import given
from ..runtime.values import check, few
from ..state import is_merged
from ..task_vectors import weights
from .align import Options, align
from .by_tensor import rehearse
from .checkpoint import CheckpointFile, check_room
from .experts import Expert, adapter_notes, adapter_warnings, open_base, open_expert
from .kinds import is_copied, is_statistic

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
        notes: what was done so that the models fit together, as sentences.
        warnings: what looks wrong with adapters, as sentences.
    """

    method: Method
    hyper: Mapping[str, Any]
    pretrained: CheckpointFile
    experts: Mapping[str, Expert]
    outputs: Mapping[str | None, Path]
    replaces: tuple[Path, ...]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of one output, without its header."""
        return sum(t.nbytes for t in self.pretrained.layout.values())

    @property
    def merged(self) -> set[str]:
        """Names of the tensors that are merged, as far as headers tell; the others are copied from θ0, or averaged."""
        return set(weights(self.pretrained))

    @property
    def statistics(self) -> tuple[str, ...]:
        """Names of the running statistics, which are averaged over the experts."""
        layout = self.pretrained.layout
        return tuple(key for key in layout if is_statistic(key) and not is_copied(key, layout[key]))

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
    options: Options | None = None,
    **hyper: Any,
) -> Plan:
    """Check a merge of files before they are read: method, hyper-parameters, headers, output, room on the disk.

    Arguments:
        method: id of a method that needs nothing but checkpoints.
        pretrained: file of θ0: safetensors, in one file or several.
        experts: task name → file of θ_k, or folder of a LoRA adapter of θ0; or (name, file) pairs.
        out: the ``.safetensors`` file to write; of a method with task-specific weights, the folder of one file per
            task.
        force: whether an output that exists is replaced.
        options: what is left out, renamed or cast where the models do not fit together.
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
    base = open_base(pretrained)
    tuned = _opened(experts, base)
    inputs = {"pretrained": base, **{f"expert {task!r}": file for task, file in tuned.items()}}
    fitting = align(base, tuned, options)
    layout = fitting.pretrained.layout
    if not any(is_merged(t) for t in layout.values()):
        raise ValueError(f"{base.path} has no floating-point tensor: there is nothing to merge")
    if not weights(layout):
        raise ValueError(f"{base.path} has no tensor of weights ({few(list(layout))}): there is nothing to merge")
    rehearse(found, layout, tuple(tuned), hyper)
    outputs = _outputs(found, given(out), tuple(tuned))
    for path in outputs.values():
        for name, file in inputs.items():
            if path.exists() and any(path.samefile(part) for part in file.files):
                raise ValueError(f"{path} is the file of {name} and is never replaced: choose another output")
    replaces = tuple(path for path in outputs.values() if path.exists() or path.is_symlink())
    if replaces and not force:
        what = "exists" if replaces[0].exists() else f"is a link to {os.readlink(replaces[0])}, which is not there"
        raise ValueError(f"{replaces[0]} {what}: choose another output, or replace it with --force (force=True)")
    defaults = {name: parameter.default for name, parameter in known.items()}
    plan = Plan(
        found, {**defaults, **hyper}, fitting.pretrained, fitting.experts, outputs, replaces,
        (*adapter_notes(tuned), *fitting.notes), adapter_warnings(tuned, base),
    )  # fmt: skip
    check_room(given(out), plan.size * len(outputs))
    return plan


def check_name(task: str, path: PathLike) -> None:
    """Raise ValueError unless an expert's name can be that of a file."""
    if not isinstance(task, str) or not _TASK.fullmatch(task):
        raise ValueError(f"name {task!r} of expert {path} should be letters, digits, '_', '-' and '.'")


def _opened(
    experts: Mapping[str, PathLike] | Iterable[tuple[str, PathLike]], base: CheckpointFile
) -> dict[str, Expert]:
    tuned: dict[str, Expert] = {}
    for task, path in experts.items() if isinstance(experts, Mapping) else experts:
        check_name(task, path)
        if task in tuned:
            raise ValueError(f"two experts are named {task!r}: name every expert differently")
        tuned[task] = open_expert(path, base)
        for other, file in tuned.items():
            if other != task and _shared_file(file, tuned[task]):
                raise ValueError(f"experts {other!r} and {task!r} are the same file {path}: give it once")
    return tuned


def _outputs(method: Method, out: Path, tasks: tuple[str, ...]) -> dict[str | None, Path]:
    if not method.task_id:
        if out.suffix != SUFFIX or out.is_dir():
            raise ValueError(f"output {out} should be a file *{SUFFIX}")
        return {None: out}
    if out.suffix or out.is_file():
        raise ValueError(
            f"{method.id} keeps one encoder per task: give a folder as output, such as {out.with_suffix('')}, "
            f"for {', '.join(task + SUFFIX for task in tasks)}"
        )
    return {task: out / f"{task}{SUFFIX}" for task in tasks}


def _shared_file(one: Expert, other: Expert) -> bool:
    mine, theirs = ({(found.st_dev, found.st_ino) for found in map(os.stat, file.files)} for file in (one, other))
    return not mine.isdisjoint(theirs)
