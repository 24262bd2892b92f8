"""The API reference: it lists every public name, each with an example, and the examples do what they show.

Examples run in a folder with the files of `files`, and with the names of `names`, which stand at the top of the page.
"""

from __future__ import annotations

import doctest
import inspect
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

import adamerging_lib as am

ROOT = Path(__file__).resolve().parents[1]
PLAIN = ("records", "StateDict")  # a module, and the name of a type
NAMES = [name for name in am.__all__ if name not in PLAIN]


def files(folder: Path, generator: torch.Generator) -> None:
    """A base with two fine-tuned models and two adapters, a folder of images, a file of texts."""
    names = ("blocks.0.attn.weight", "blocks.0.mlp.weight")
    base = {name: torch.randn(4, 4, generator=generator) for name in names}
    save_file(base, folder / "base.safetensors")
    for name in ("cars", "pets"):
        moved = {key: t + 0.1 * torch.randn(4, 4, generator=generator) for key, t in base.items()}
        save_file(moved, folder / f"{name}.safetensors")
        lora = folder / f"{name}_lora"
        lora.mkdir()
        parts = {
            f"base_model.model.{key.removesuffix('weight')}lora_{side}.weight": torch.randn(*shape, generator=generator)
            for key in names
            for side, shape in (("A", (2, 4)), ("B", (4, 2)))
        }
        save_file(parts, lora / "adapter_model.safetensors")
        told = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["attn", "mlp"]}
        (lora / "adapter_config.json").write_text(json.dumps(told))
    for kind in ("cat", "dog"):
        (folder / "photos" / kind).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (8, 8), (100 * number, 0, 0)).save(folder / "photos" / kind / f"{number}.png")
    (folder / "reviews.csv").write_text("text,label\na fine film,good\na dull film,bad\n")


class Net(nn.Module):
    """A body, and a head that each task keeps for itself."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[n, 4]`` → ``[n, 3]``."""
        return self.head(self.body(x).relu())


def names() -> dict[str, object]:
    """What examples may use beside the library."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net, tasks = Net(), ("cars", "pets")
        whole = {task: Net().state_dict() for task in tasks}
        labelled = {task: [(torch.randn(8, 4), torch.randint(3, (8,))) for _ in range(3)] for task in tasks}
    base = {key: t for key, t in net.state_dict().items() if key.startswith("body")}
    data = {task: [inputs for inputs, _ in batches] for task, batches in labelled.items()}
    given = {"net": net, "base": base, "experts": whole, "data": data, "labelled": labelled}
    return {"am": am, "np": np, "pd": pd, "torch": torch, "Path": Path, **given}


@pytest.mark.parametrize("name", NAMES)
def test_the_example_of_every_public_name_does_what_it_shows(name, tmp_path, monkeypatch):
    text = inspect.getdoc(getattr(am, name)) or ""
    given = names()
    if name not in ("adapt", "Adapted", "load_adapted"):  # where nothing is private, experts have the base's names
        given["experts"] = {task: {k: s[k] for k in given["base"]} for task, s in given["experts"].items()}
    test = doctest.DocTestParser().get_doctest(text, given, name, None, None)
    assert test.examples, f"am.{name} has no example"
    files(tmp_path, torch.Generator().manual_seed(0))
    monkeypatch.chdir(tmp_path)
    told: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test, out=told.append)
    assert not told, "".join(told)


def test_the_page_lists_every_public_name_and_no_other():
    page = (ROOT / "book/api.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\.\. auto(?:function|class|exception):: adamerging_lib\.(\w+)$", page, re.MULTILINE)
    assert len(listed) == len(set(listed)) and set(listed) == set(NAMES)
