"""Learn the coefficients of a profile's task vectors, in one process or in several that torchrun starts.

    torchrun --nproc-per-node 2 -m adamerging_lib adapt --profile clip-b32 --out merged.safetensors \\
        --set recipe=paper --set checkpoint=run.safetensors

writes the merged encoder and, beside it, the coefficients. A run that is killed goes on from its checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..methods.registry import find, hyper_parameters
from ..methods.run import run_method
from ..runtime.distributed import group, leads
from ..runtime.values import parse
from ..state import save
from ..worlds.profiles import load_suite

SHARED = (
    "layer_wise_adamerging", "layer_wise_adamerging_pp", "task_wise_adamerging", "task_wise_adamerging_pp", "doge_am",
    "supermerge",
)  # fmt: skip
"""Methods whose steps are shared."""


def choose(profile: str | None, model: str | None, own: Mapping[str, object], world: Mapping[str, object]) -> None:
    """Raise ValueError unless one of --profile and --model is given, with none of the other's options."""
    if (profile is None) == (model is None):
        raise ValueError("give either --profile NAME, a world, or --model KIND:NAME with --expert and --data, your own")
    other, name = (own, "--model") if model is None else (world, "--profile")
    if foreign := [option for option, value in other.items() if value not in (None, False)]:
        raise ValueError(f"{foreign[0]} is for {name}: leave it out")


def adapt_profile(
    profile: str, out: Path, method: str, tasks: str | None = None, pairs: Sequence[str] = (), device: str = "auto"
) -> None:
    """Learn λ on a profile, in one process or in several; write the merged encoder and the coefficients beside it.

    Arguments:
        profile: its name.
        out: .safetensors file to write; the coefficients go to a .json of the same name.
        method: id of one of ``SHARED``.
        tasks: some of the profile's, ``A,B``; default: all.
        pairs: ``name=value`` each, hyper-parameters.
        device: cpu, cuda or auto.

    Raises:
        ValueError: saying what to mend.
    """
    hyper = parse(method, hyper_parameters(find(method)), pairs)
    if method not in SHARED:
        raise ValueError(f"method {method!r} shares no steps: choose from {', '.join(SHARED)}")
    table = out.with_suffix(".json")
    if taken := [path for path in (out, table) if path.exists()]:
        raise ValueError(f"{taken[0]} exists: name another --out, or move it away")
    with group(hyper.pop("device", device)) as device:
        suite = load_suite(profile, tasks=tasks.split(",") if tasks else None)
        merged = run_method(method, suite, cache=False, device=device, **hyper)
        if leads():
            save(out, merged.state_dict(), {"method": method, "profile": profile})
            merged.coefficients.save(table)
            print(f"{out}, {table}: {len(merged.history)} steps in {merged.seconds:.1f} s")
