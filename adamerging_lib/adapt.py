"""Learn the coefficients of a profile's task vectors, in one process or in several that torchrun starts.

    torchrun --nproc-per-node 2 -m adamerging_lib.adapt --profile clip-b32 --out merged.safetensors \\
        --set recipe=paper --set checkpoint=run.safetensors

writes the merged encoder and, beside it, the coefficients. A run that is killed goes on from its checkpoint.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from .methods.registry import find, hyper_parameters
from .methods.run import run_method
from .runtime.distributed import group, leads
from .runtime.values import parse
from .state import save
from .worlds.profiles import load_suite

SHARED = (
    "layer_wise_adamerging", "layer_wise_adamerging_pp", "task_wise_adamerging", "task_wise_adamerging_pp", "doge_am",
    "supermerge",
)  # fmt: skip
"""Methods whose steps are shared."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Learn λ on a profile, in one process or in several; write the merged encoder and the coefficients beside it."""
    parser = argparse.ArgumentParser("python -m adamerging_lib.adapt", description=__doc__.splitlines()[0])
    parser.add_argument("--profile", required=True)
    parser.add_argument("--tasks", nargs="+", help="some of the profile's; default: all")
    parser.add_argument("--method", default="layer_wise_adamerging", choices=SHARED, metavar="ID")
    parser.add_argument("--set", action="append", default=[], dest="pairs", metavar="NAME=VALUE", help="of the method")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, required=True, help=".safetensors file; the coefficients go to a .json")
    given = parser.parse_args(arguments)
    try:
        hyper = parse(given.method, hyper_parameters(find(given.method)), given.pairs)
        table = given.out.with_suffix(".json")
        if taken := [path for path in (given.out, table) if path.exists()]:
            raise ValueError(f"{taken[0]} exists: name another --out, or move it away")
        with group(hyper.pop("device", given.device)) as device:
            suite = load_suite(given.profile, tasks=given.tasks)
            merged = run_method(given.method, suite, cache=False, device=device, **hyper)
            if leads():
                save(given.out, merged.state_dict(), {"method": given.method, "profile": given.profile})
                merged.coefficients.save(table)
                print(f"{given.out}, {table}: {len(merged.history)} steps in {merged.seconds:.1f} s")
    except (ValueError, OSError, MemoryError) as error:
        print(f"adamerging_lib.adapt: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
