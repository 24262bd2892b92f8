"""What a run costs: seconds of a core or of a GPU, and the memory at its peak beyond what was there before."""

from __future__ import annotations

import ctypes
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

T = TypeVar("T")

_PROCESS = Path("/proc/self")
_inside: dict[str, int] = {}  # device type → highest level of the runs inside the present one, whose mark is theirs
_files: dict[str, int] = {}  # device type → bytes of mapped files when the present run began


def measured(make: Callable[[], T], device: str | torch.device = "cpu") -> tuple[T, float, int | None]:
    """Call a function and measure what it takes.

    On a CPU, seconds are those of one core, summed over threads: other work on the machine does not change them, and
    alone with one thread they are what a clock shows. On a GPU a clock is read when the queue is empty.

    Memory is counted where the work is done. On a GPU: what torch has allocated at the peak. On a CPU: anonymous
    resident memory at the peak, by the mark that Linux itself keeps, so that nothing is sampled, nothing slows down
    and no moment is missed. Freed memory that the process still holds is given back first (glibc), or a run would use
    the previous one's unseen. The number is good to a few megabytes. One run may hold another.

    Arguments:
        make: what to measure.
        device: where it works, already resolved.

    Returns:
        (its result, seconds, bytes); None for bytes where the system keeps no such mark.
    """
    device = torch.device(device)
    levels, reset = (_gpu_levels, _gpu_reset) if device.type == "cuda" else (_cpu_levels, _cpu_reset)
    # Order matters: setting the mark back erases the peak of the run around this one, so it is read before; and what is
    # held is read after, when freed memory has been given back.
    outer_files = _files.get(device.type, 0)
    outer = max(_inside.get(device.type, 0), _peak(levels(device), outer_files))
    known = reset(device)
    (before, _, _files[device.type]), _inside[device.type] = levels(device), 0
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    start = clock()
    try:
        result = make()
        if device.type == "cuda":  # launching a kernel returns before it has run
            torch.cuda.synchronize(device)
        seconds = clock() - start
    finally:  # a run that fails has set the outer one's mark back all the same
        peak = max(_inside[device.type], _peak(levels(device), _files[device.type]))
        _inside[device.type], _files[device.type] = max(outer, peak), outer_files
    return result, seconds, max(0, peak - before) if known else None


def _peak(levels: tuple[int, int, int], files: int) -> int:
    """The highest level since the mark was set back, without mapped files.

    Linux keeps no peak without them, so those of one moment are taken off. The system may drop them at any time, also
    after the peak: the larger of what was mapped at the beginning and what is now comes nearer to what was then.
    """
    _, peak, now = levels
    return peak - max(files, now)


def _gpu_levels(device: torch.device) -> tuple[int, int, int]:
    torch.cuda.synchronize(device)
    return torch.cuda.memory_allocated(device), torch.cuda.max_memory_allocated(device), 0


def _gpu_reset(device: torch.device) -> bool:
    torch.cuda.reset_peak_memory_stats(device)
    return True


def _cpu_levels(device: torch.device) -> tuple[int, int, int]:
    """Resident bytes now, without mapped files; at the peak since the mark was set back, with them; and theirs now."""
    if sys.platform != "linux":
        return 0, 0, 0
    # Pages of mapped files, such as image stores and checkpoints, are the system's to drop at any moment: a run that
    # reads them needs no memory for it.
    found = re.findall(r"^(VmHWM|VmRSS|RssFile):\s+(\d+) kB", (_PROCESS / "status").read_text(), re.MULTILINE)
    kilobytes = {name: int(number) for name, number in found}
    now, peak, files = (1024 * kilobytes.get(name, 0) for name in ("VmRSS", "VmHWM", "RssFile"))
    return now - files, peak, files


def _cpu_reset(device: torch.device) -> bool:
    """Give freed memory back and set the mark back to what is resident now; whether both were possible."""
    if sys.platform != "linux" or not hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        return False
    libc.malloc_trim(0)
    try:
        (_PROCESS / "clear_refs").write_text("5")  # proc(5): sets VmHWM back to what is resident
    except OSError:  # some containers hide the file
        return False
    return True
