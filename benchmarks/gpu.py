"""All rows of the benchmark of a step on this machine's GPU: three archs, eight and twenty tasks, full and half width.

What does not fit into the GPU's memory is said and left out.

    python benchmarks/gpu.py
"""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("adamerging_step.py")
CASES = ("ViT-B-32", "ViT-B-16", "ViT-L-14")
TASKS = (8, 20)
SPEED = ((), ("--autocast", "bfloat16", "--vectors-dtype", "bfloat16"))


def calls() -> list[list[str]]:
    """Arguments of the benchmark, one call each: a process of its own begins with an empty GPU."""
    found = []
    for case, tasks, speed in itertools.product(CASES, TASKS, SPEED):
        # All images of a step at once fill more than any GPU for the larger towers; a pass per task does not.
        passes = [] if case == "ViT-B-32" else ["--passes", str(tasks)]
        found.append(["--device", "cuda", "--case", case, "--tasks", str(tasks), *passes, *speed])
    return found


def main() -> int:
    """Run them all, one after the other."""
    failed = []
    for arguments in calls():
        print("adamerging_step.py", *arguments, flush=True)
        if subprocess.run([sys.executable, str(SCRIPT), *arguments], check=False).returncode:
            failed.append(" ".join(arguments))
    for arguments in failed:
        print(f"not measured: {arguments}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
