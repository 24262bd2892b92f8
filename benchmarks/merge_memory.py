"""How much memory merging eight files takes, tensor by tensor against all loaded.

Makes a pretrained checkpoint and eight experts of an encoder's shapes with random half-precision numbers, merges them
by the command in a process of its own, and reads that process's peak of resident memory, with torch itself (some 400
MB) and the mapped pages of the files in it; Linux only. Seconds are CPU time. "All loaded" is what a script does that
reads the files, merges them by `am.merge` and saves the result. The files are removed at the end.

    python benchmarks/merge_memory.py --case ViT-B-32 --case ViT-L-14 --folder somewhere/with/room
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from adamerging_lib import records
from adamerging_lib.runtime.compat import import_open_clip
from adamerging_lib.runtime.environment import environment
from adamerging_lib.state import load, save

RESULT = Path(__file__).parent / "results" / "merge_memory.json"
TASKS = 8
METHODS = ("task_arithmetic", "ties", "pcb", "iso_c")

COMMAND = """
import sys
from adamerging_lib.cli import main
if main(sys.argv[1:]):
    sys.exit(2)
"""

ALL_LOADED = """
import sys
import adamerging_lib as am
from adamerging_lib.state import load, save
method, base, out, *experts = sys.argv[1:]
vectors = am.TaskVectors.from_state_dicts(load(base), {path: load(path) for path in experts})
save(out, am.merge(method, vectors).state_dict())
"""


@dataclass(frozen=True)
class Case:
    """Shape of an image tower of CLIP; ``loads``: whether loading all models is measured too."""

    patch: int
    width: int
    layers: int
    dim: int
    loads: bool

    def shapes(self) -> dict[str, torch.Size]:
        vision = import_open_clip().transformer.VisionTransformer
        with torch.device("meta"):
            tower = vision(224, self.patch, self.width, self.layers, self.width // 64, 4, output_dim=self.dim)
        return {key: t.shape for key, t in tower.state_dict().items()}


CASES = {
    "ViT-B-32": Case(32, 768, 12, 512, loads=True),
    "ViT-L-14": Case(14, 1024, 24, 768, loads=False),  # eight task vectors alone are 9.7 GB
}


def make_files(case: Case, folder: Path) -> tuple[Path, list[Path]]:
    """θ0 and eight experts that lie a twentieth of it away, in half precision."""
    generator = torch.Generator().manual_seed(0)
    paths = [folder / f"{name}.safetensors" for name in ("base", *(f"task_{k}" for k in range(TASKS)))]
    shapes = case.shapes()
    base = {key: (0.05 * torch.randn(shape, generator=generator)).half() for key, shape in shapes.items()}
    save(paths[0], base)
    for path in paths[1:]:
        save(path, {k: t + (0.0025 * torch.randn(t.shape, generator=generator)).half() for k, t in base.items()})
    return paths[0], paths[1:]


def peak(code: str, arguments: list[str], python: str = sys.executable) -> tuple[float, float]:
    """MB of resident memory at the peak, and seconds of CPU time, of a Python process that must succeed."""
    # Of the process itself: what the system tells its parent holds the parent's own peak too, through the fork.
    code += '\nprint(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")))'
    process = subprocess.Popen([python, "-c", code, *arguments], stdout=subprocess.PIPE, text=True)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(arguments[:3])} … ended with {process.returncode}")
    kilobytes = int(output.rsplit("VmHWM:", 1)[1].split()[0])
    return kilobytes * 1024 / 1e6, usage.ru_utime + usage.ru_stime


def measure(name: str, methods: list[str], folder: Path) -> list[dict[str, object]]:
    """Rows of the record for one case."""
    case = CASES[name]
    base, experts = make_files(case, folder)
    parameters = sum(shape.numel() for shape in case.shapes().values())
    identity = {"case": name, "parameters": parameters, "tasks": TASKS, "dtype": "float16"}
    rows = []

    def add(method: str, quantity: str, value: float, baseline: float, seconds: float) -> None:
        numbers = {"value": round(value), "baseline": round(baseline), "ratio": round(value / baseline, 3)}
        rows.append({**identity, "method": method, "quantity": quantity, **numbers, "seconds": round(seconds, 1)})
        print(rows[-1], flush=True)

    for method in methods:
        out = folder / "merged.safetensors"
        named = [word for path in experts for word in ("--expert", f"{path.stem}={path}")]
        command = ["merge", "--method", method, "--pretrained", str(base), *named, "--out", str(out), "--force"]
        streamed, seconds = peak(COMMAND, command)
        add(method, "MB at the peak, tensor by tensor, against two models in float32", streamed,
            2 * 4 * parameters / 1e6, seconds)  # fmt: skip
        if case.loads:
            kept = load(out)
            loaded, seconds = peak(ALL_LOADED, [method, str(base), str(out), *map(str, experts)])
            again = load(out)
            if any(not torch.equal(kept[key], t) for key, t in again.items()):
                raise RuntimeError(f"{method}: the two ways differ")
            add(method, "MB at the peak, all loaded, against tensor by tensor", loaded, streamed, seconds)
        out.unlink()
    return rows


def main() -> None:
    """Run the cases and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", action="append", choices=CASES, help="default: all")
    parser.add_argument("--method", action="append", help=f"default: {', '.join(METHODS)}")
    parser.add_argument("--folder", type=Path, help="for 7 GB of files; default: the system's temporary folder")
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args()
    started, clock = dt.datetime.now(dt.UTC), time.perf_counter()
    cases, methods = options.case or list(CASES), options.method or list(METHODS)
    rows: list[dict[str, object]] = []
    for name in cases:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            rows += measure(name, methods, Path(folder))
    parameters = {"cases": cases, "methods": methods, "tasks": TASKS}
    seconds = time.perf_counter() - clock
    record = records.new(
        "merge_memory", "benchmark", parameters, None, rows, [0], started, seconds, environment=environment()
    )
    records.write(record, options.output)


if __name__ == "__main__":
    main()
