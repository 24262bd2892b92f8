"""What a step of `am.adapt` costs with LoRA adapters in their factors, beside the same experts as whole models.

A ViT-B/32 of timm with random weights, and K adapters of every matrix in its blocks. In factors, λ and its gradient
take B and A: ⟨G, B A⟩ = ⟨Bᵀ G, A⟩; whole, every expert has 88 million numbers. Both runs are one process,
the same images, in turn; seconds are those of one core, summed over threads: of several steps less those of none, by
their number. Memory is the peak above what was there before.

    python benchmarks/lora_step.py
    python benchmarks/lora_step.py --tasks 2 --model vit_tiny_patch16_224   # a quick look
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

import adamerging_lib as am
from adamerging_lib import records, state
from adamerging_lib.runtime.compat import import_timm
from adamerging_lib.runtime.cost import measured
from adamerging_lib.runtime.environment import environment

RESULTS = Path(__file__).parent / "results"
MATRICES = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")


def made(name: str) -> nn.Module:
    """The model, with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return import_timm().create_model(name, num_classes=10).eval()


def adapter(folder: Path, model: nn.Module, rank: int, seed: int) -> None:
    """Random factors for every matrix of the blocks, small as after training."""
    generator, tensors = torch.Generator().manual_seed(seed), {}
    for key, weight in model.state_dict().items():
        if key.startswith("blocks.") and key.endswith(tuple(f"{name}.weight" for name in MATRICES)):
            rows, columns = weight.shape
            place = f"base_model.model.{key.removesuffix('.weight')}"
            tensors[f"{place}.lora_A.weight"] = torch.randn(rank, columns, generator=generator) / columns**0.5
            tensors[f"{place}.lora_B.weight"] = 0.01 * torch.randn(rows, rank, generator=generator)
    state.save(folder / "adapter_model.safetensors", tensors)
    told = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": list(MATRICES)}
    (folder / "adapter_config.json").write_text(json.dumps(told))


def seconds(run: Callable[[int], object], steps: int) -> float:
    """Seconds of a core that one step takes."""
    spent = []
    for count in (0, steps):
        begun = time.process_time()
        run(count)
        spent.append(time.process_time() - begun)
    return (spent[1] - spent[0]) / steps


def main() -> None:
    """Measure, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="vit_base_patch32_224")
    parser.add_argument("--tasks", type=int, default=8)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--output", type=Path, default=RESULTS / "lora_step.json")
    given = parser.parse_args()
    started, clock = dt.datetime.now(dt.UTC), time.perf_counter()
    torch.set_num_threads(1)
    model = made(given.model)
    base, generator = dict(model.state_dict()), torch.Generator().manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        paths = {f"task{k}": Path(folder, f"adapter{k}") for k in range(given.tasks)}
        for k, path in enumerate(paths.values()):
            path.mkdir()
            adapter(path, model, given.rank, k)
        side = model.patch_embed.img_size
        data = {task: [torch.randn(given.batch_size, 3, *side, generator=generator)] for task in paths}

        def run(experts: Callable[[], dict[str, object]], steps: int) -> am.Adapted:
            return am.adapt(model, base, experts(), data=data, steps=steps, lr=0.01, progress=False)

        def whole() -> dict[str, dict[str, Tensor]]:
            return {task: dict(am.load_adapter(path, base)) for task, path in paths.items()}

        ways = {"factors": lambda: dict(paths), "whole": whole}
        spent = {name: seconds(lambda count, experts=experts: run(experts, count), given.steps)
                 for name, experts in ways.items()}  # fmt: skip
        ends, memory = {}, {}
        for name, experts in ways.items():
            ends[name], _, memory[name] = measured(lambda experts=experts: run(experts, 1), torch.device("cpu"))
    rows = ends["factors"].coefficients.rows
    values = ends["whole"].coefficients.values[:, [ends["whole"].coefficients.rows.index(row) for row in rows]]
    apart = float((ends["factors"].coefficients.values - values).abs().max())
    print(f"after one step the coefficients differ by {apart:.1e}, of a step of 1e-2")
    case = f"{given.model}, K = {given.tasks}, rank {given.rank}, {given.batch_size} images per task"
    table = [
        {"case": case, "quantity": f"{what} in factors against whole task vectors, {unit}", "value": round(a, 3),
         "baseline": round(b, 3), "ratio": round(a / b, 4), "spread": 0.0}
        for what, unit, a, b in (
            ("a step", "seconds of a core", spent["factors"], spent["whole"]),
            ("peak memory", "GB", memory["factors"] / 1e9, memory["whole"] / 1e9),
        )
    ]  # fmt: skip
    record = records.new(
        "lora_step", "random", {k: v for k, v in vars(given).items() if k != "output"}, None, table, [0], started,
        time.perf_counter() - clock, environment=environment(torch.device("cpu")),
    )  # fmt: skip
    records.write(record, given.output)
    for row in table:
        print(row)


if __name__ == "__main__":
    main()
