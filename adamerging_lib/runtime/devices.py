"""What a GPU asks of its users: copies that nobody waits for, lower precision, and advice when memory runs out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

DTYPES = {None: None, "bfloat16": torch.bfloat16}


def sent(t: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device; a copy from the CPU to a GPU does not wait for the work that is queued there."""
    if device.type == "cuda" and t.device.type == "cpu":
        return t.pin_memory().to(device, non_blocking=True)
    return t.to(device)


def dtype(name: str, value: str | None) -> torch.dtype | None:
    """The narrow type that an option names, or None; float16, whose smallest numbers are too large, is not offered."""
    if value not in DTYPES:
        raise ValueError(f"{name}={value!r} is unknown; use {' or '.join(map(repr, DTYPES))}")
    return DTYPES[value]


@contextmanager
def advice_on_memory(parameters: int, tasks: int, options: Mapping[str, Any]) -> Iterator[None]:
    """Turn torch's report that an accelerator's memory ran out into one that says what takes it and what helps.

    Arguments:
        parameters: P, numbers of one encoder that are merged.
        tasks: K.
        options: how it runs: ``batch_size`` and ``batches``; and of a method that has these options, ``passes``, and
            ``autocast`` and ``vectors_dtype`` where set.

    Raises:
        MemoryError: in place of torch.OutOfMemoryError.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        narrow, passes = options.get("vectors_dtype") is not None, options.get("passes", tasks)
        vectors = tasks * parameters * (2 if narrow else 4) / 1e9
        knobs = []
        if passes < tasks:
            knobs.append(f"passes={tasks} (now {passes}) needs a {tasks // passes}th of the activations, same result")
        if "passes" in options and options.get("autocast") is None:
            knobs.append('autocast="bfloat16" needs about half of them')
        if "passes" in options and not narrow:
            knobs.append(f'vectors_dtype="bfloat16" needs {vectors / 2:.1f} GB less for the task vectors')
        knobs += [
            f"{name}={options[name] // 2} (now {options[name]}) halves the images, and is another recipe"
            for name in ("batch_size", "batches")
            if options.get(name, 1) > 1
        ]
        knobs.append("a GPU with more memory that no other program uses")
        own = 3 * parameters * 4 / 1e9
        raise MemoryError(
            f"the GPU's memory ran out. {tasks} task vectors take {vectors:.1f} GB, the pretrained and the merged "
            f"model and its gradient {own:.1f} GB, the rest is for activations. What helps, best first: "
            f"{'; '.join(knobs)}. torch says: {error}"
        ) from error
