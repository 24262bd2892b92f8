"""Merging files by this library against mergekit, on the same files, in one thread: CPU time and memory.

Makes a base and three experts of a language model's shapes, 214 million parameters in half precision, in a temporary
folder; merges them by task arithmetic and by Ties, by the command ``adamerging merge`` and by mergekit's `run_merge`,
each in a process of its own. Seconds are CPU time of that process, and of what follows its imports; memory is resident
memory at the peak, with torch itself and the mapped pages of the files in it; Linux only.

mergekit is not a dependency of this project: name a Python that has it.

    python benchmarks/merge_files.py --mergekit somewhere/bin/python
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import tempfile
import time
from pathlib import Path

import torch
from merge_memory import peak

from adamerging_lib import records
from adamerging_lib.runtime.environment import environment
from adamerging_lib.state import load, save

RESULT = Path(__file__).parent / "results" / "merge_files.json"
WIDTH, INSIDE, LAYERS, WORDS = 1024, 2656, 12, 32000
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": WIDTH, "intermediate_size": INSIDE,
    "num_hidden_layers": LAYERS, "num_attention_heads": 16, "num_key_value_heads": 16, "vocab_size": WORDS,
    "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "torch_dtype": "float16", "max_position_embeddings": 2048,
}  # fmt: skip
EXPERTS = ("a", "b", "c")

# Settings that mean the same: λ = 0.3, a sum over tasks; 20 % kept. mergekit trims tensor by tensor.
METHODS = {
    "task_arithmetic": (["scaling=0.3"], {"normalize": False}, {"weight": 0.3}),
    "ties": (["keep=0.2", "scaling=0.3"], {"normalize": False}, {"weight": 0.3, "density": 0.2}),
}

# Both leave the CPU seconds since their imports in the file that they are given first.
OURS = """
import sys, time
import torch
told = sys.argv.pop(1)
from adamerging_lib.cli import main
from adamerging_lib.command import actions
torch.set_num_threads(1)
start = time.process_time()
if main(sys.argv[1:]):
    sys.exit(2)
open(told, "w").write(str(time.process_time() - start))
"""
THEIRS = """
import json, sys, time
import torch
told = sys.argv.pop(1)
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
torch.set_num_threads(1)
config = MergeConfiguration.model_validate(json.loads(sys.argv[1]))
options = MergeOptions(copy_tokenizer=False, quiet=True, write_model_card=False, num_threads=1)
start = time.process_time()
run_merge(config, sys.argv[2], options)
open(told, "w").write(str(time.process_time() - start))
"""


def shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the model's tensors."""
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (WORDS, WIDTH)}
    for n in range(LAYERS):
        at = f"model.layers.{n}."
        found |= {f"{at}self_attn.{part}_proj.weight": (WIDTH, WIDTH) for part in "qkvo"}
        found |= {f"{at}mlp.{part}_proj.weight": (INSIDE, WIDTH) for part in ("gate", "up")}
        found |= {f"{at}mlp.down_proj.weight": (WIDTH, INSIDE)}
        found |= {f"{at}{norm}_layernorm.weight": (WIDTH,) for norm in ("input", "post_attention")}
    return found | {"model.norm.weight": (WIDTH,), "lm_head.weight": (WORDS, WIDTH)}


def make_models(folder: Path) -> int:
    """Folders of the base and three experts that lie a twentieth of it away; how many parameters each has."""
    generator = torch.Generator().manual_seed(0)

    def noise(shape: tuple[int, ...], size: float) -> torch.Tensor:
        return (size * torch.randn(shape, generator=generator)).half()

    base = {key: noise(shape, 0.05) for key, shape in shapes().items()}
    for name in ("base", *EXPERTS):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps(CONFIG))
        own = base if name == "base" else {key: t + noise(tuple(t.shape), 0.0025) for key, t in base.items()}
        save(folder / name / "model.safetensors", own, {"format": "pt"})
    return sum(t.numel() for t in base.values())


def command(method: str, folder: Path) -> list[str]:
    """Words of ``adamerging``."""
    named = [word for name in EXPERTS for word in ("--expert", f"{name}={folder / name}")]
    given = [word for pair in METHODS[method][0] for word in ("--set", pair)]
    out = folder / "ours.safetensors"
    return ["merge", "--method", method, "--pretrained", str(folder / "base"), *named, *given, "--out", str(out)]


def configuration(method: str, folder: Path, dtype: str) -> list[str]:
    """Arguments of the process that runs mergekit."""
    _, parameters, own = METHODS[method]
    config = {
        "merge_method": method,
        "base_model": str(folder / "base"),
        "models": [{"model": str(folder / name), "parameters": own} for name in EXPERTS],
        "parameters": parameters,
        "dtype": dtype,
        "out_dtype": "float16",
    }
    return [json.dumps(config), str(folder / "theirs")]


def timed(code: str, arguments: list[str], python: list[str]) -> dict[str, float]:
    """MB at the peak, CPU seconds of the process, and CPU seconds since its imports."""
    with tempfile.NamedTemporaryFile("r") as told:
        memory, process = peak(code, [told.name, *arguments], *python)
        return {"MB at the peak": memory, "CPU seconds, with imports": process, "CPU seconds": float(told.read())}


def measure(folder: Path, mergekit: str, dtype: str, repeats: int) -> list[dict[str, object]]:
    """Rows of the record."""
    parameters = make_models(folder)
    rows = []
    for method in METHODS:
        runs: list[tuple[dict[str, float], dict[str, float]]] = []
        for _ in range(repeats):
            ours = timed(OURS, [*command(method, folder), "--force"], [])
            theirs = timed(THEIRS, configuration(method, folder, dtype), [mergekit])
            runs.append((ours, theirs))
        for quantity in runs[0][0]:
            value, baseline = (min(run[side][quantity] for run in runs) for side in (0, 1))
            row = {"method": method, "parameters": parameters, "experts": len(EXPERTS), "quantity": quantity}
            digits = 0 if "MB" in quantity else 2
            row |= {"value": round(value, digits), "baseline": round(baseline, digits)}
            rows.append(row | {"ratio": round(value / baseline, 3)})
            print(rows[-1], flush=True)
        if method == "task_arithmetic":  # the same formula: a check that both did the same work
            check_alike(folder)
    return rows


def check_alike(folder: Path) -> None:
    """Raise RuntimeError where the two results differ by more than half precision does."""
    ours, theirs = load(folder / "ours.safetensors"), load(folder / "theirs" / "model.safetensors")
    for key, t in ours.items():
        if (t.float() - theirs[key].float()).abs().max() > 2e-3:
            raise RuntimeError(f"{key}: the two results differ")


def main() -> None:
    """Run and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mergekit", required=True, metavar="PYTHON", help="a Python that has mergekit 0.1.5")
    parser.add_argument("--dtype", default="float16", help="what mergekit computes in; float32 as ours does")
    parser.add_argument("--repeats", type=int, default=2, help="the least of so many runs counts")
    parser.add_argument("--folder", type=Path, help="for 3 GB of files; default: the system's temporary folder")
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args()
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    started, clock = dt.datetime.now(dt.UTC), time.perf_counter()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        rows = measure(Path(folder), options.mergekit, options.dtype, options.repeats)
    parameters = {"mergekit": "0.1.5", "dtype": options.dtype, "repeats": options.repeats, "config": CONFIG}
    seconds = time.perf_counter() - clock
    record = records.new(
        "merge_files", "benchmark", parameters, None, rows, [0], started, seconds, environment=environment()
    )
    records.write(record, options.output)


if __name__ == "__main__":
    main()
