"""Task vectors of checkpoints on disk, computed anew each time one is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from torch import Tensor

from ..state import check_state_dicts, differences, is_finite, is_merged
from ..task_vectors import TaskVectors
from .checkpoint import CheckpointFile


class _Differences(Mapping[str, Tensor]):
    def __init__(
        self, pretrained: CheckpointFile, experts: Mapping[str, CheckpointFile], on_read: Callable[[], object]
    ):
        self._pretrained, self._experts, self._on_read = pretrained, experts, on_read
        self._names = dict.fromkeys(key for key, t in pretrained.layout.items() if is_merged(t))

    def __getitem__(self, key: str) -> Tensor:
        if key not in self._names:
            raise KeyError(key)
        self._on_read()
        base = {key: self._pretrained[key]}
        t = differences(key, base[key], list(self._experts.values()))
        if not is_finite(t):
            check_state_dicts(base, {task: {key: expert[key]} for task, expert in self._experts.items()})
        return t

    def __contains__(self, key: object) -> bool:  # Mapping's own would read the tensor
        return key in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def lazy_task_vectors(
    pretrained: CheckpointFile, experts: Mapping[str, CheckpointFile], on_read: Callable[[], object] = lambda: None
) -> TaskVectors:
    """Task vectors of checkpoints on disk, computed and checked for NaN anew each time one is asked for.

    Arguments:
        pretrained: θ0.
        experts: task name → θ_k, of the same layout.
        on_read: called once for every tensor.
    """
    return TaskVectors(tuple(experts), pretrained, _Differences(pretrained, experts, on_read))
