"""What the builders of all zoos share: schedules, the time each stage took, and manifests."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...runtime.atomic import atomic


@dataclass(frozen=True)
class Schedule:
    """One stage of training."""

    steps: int
    lr: float
    batch_size: int
    warmup: int
    weight_decay: float = 0.1
    seed: int = 0


@contextmanager
def timed(work: Path, stage: str) -> Iterator[None]:
    """Add the seconds of the block to the stage's in a work folder, interrupted or not."""
    started = time.monotonic()
    try:
        yield
    finally:
        so_far = seconds(work)
        so_far[stage] = round(so_far.get(stage, 0) + time.monotonic() - started)
        write_json(work / "seconds.json", so_far)


def seconds(work: Path) -> dict[str, int]:
    """Seconds spent on each stage so far."""
    path = work / "seconds.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Plain values as JSON, all or nothing."""
    with atomic(path) as partial:
        partial.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
