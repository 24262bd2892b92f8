"""The loop of every experiment: run a method, measure it, and turn the measurement into rows of a record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .evaluation import evaluate
from .methods import run_method
from .methods.registry import find
from .records import rows_of
from .suite import Suite


def measure(
    suite: Suite,
    method: str,
    *,
    condition: str = "clean",
    group: str = "all",
    seed: int = 0,
    setting: str = "transductive",
    device: str = "cpu",
    learning: Mapping[str, Any] | None = None,
    progress: bool = False,
    **hyper: Any,
) -> list[dict[str, Any]]:
    """Accuracy, entropy, loss and calibration of one method on every task of a suite, and on average.

    Arguments:
        suite: what to merge, and the test images.
        method: method id.
        condition: ``clean``, the name of a corruption, or ``lambda=...``; recorded.
        group: ``all``, ``seen`` or ``unseen``; recorded.
        seed: of adaptive methods; recorded.
        setting: ``transductive`` (the paper's) or ``inductive``; recorded.
        device: ``cpu``, ``cuda`` or ``auto``.
        learning: hyper-parameters for adaptive methods only (steps, lr, …), so that one loop serves all methods.
        progress: show the progress of adaptive methods on stderr.
        hyper: further hyper-parameters of this method.

    Returns:
        Rows of a record, one a task and a last one ``Average`` (unweighted): ``method, condition, group, seed, task,
        accuracy`` (percent), ``n, entropy, loss`` (nats), ``calibration`` (percent), ``setting, split``.

    Raises:
        ValueError: for an unknown method, hyper-parameter or setting.
    """
    if find(method).adaptive:
        hyper = {**(learning or {}), "seed": seed, "setting": setting, "device": device, "progress": progress, **hyper}
    frame = evaluate(suite, run_method(method, suite, **hyper), setting=setting, device=device)
    return rows_of(frame, method=method, condition=condition, group=group, seed=seed)


def sweep(suite: Suite, method: str, scalings: Iterable[float], **options: Any) -> list[dict[str, Any]]:
    """`measure` a method at several λ: rows with the condition ``lambda=0.30`` and the number in ``scaling``.

    Arguments:
        suite, method: as for `measure`; the method takes ``scaling``.
        scalings: values of λ, told apart to two digits.
        options: as for `measure`.

    Raises:
        ValueError: for values of λ that agree to two digits.
    """
    conditions = {scaling: f"lambda={scaling:.2f}" for scaling in scalings}
    if len(set(conditions.values())) != len(conditions):
        raise ValueError(f"scalings {list(conditions)} repeat to two digits: choose values at least 0.01 apart")
    return [
        {**row, "scaling": scaling}
        for scaling, condition in conditions.items()
        for row in measure(suite, method, condition=condition, scaling=scaling, **options)
    ]
