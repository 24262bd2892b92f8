"""A toy suite: a two-block ViT of width 16 with open_clip's tensor names, random weights, heads and images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adamerging_lib.suite import Suite, TaskData

TASKS = ("alpha", "beta", "gamma")


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential()
        self.mlp.add_module("c_fc", nn.Linear(width, 2 * width))
        self.mlp.add_module("gelu", nn.GELU())
        self.mlp.add_module("c_proj", nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class Tower(nn.Module):
    def __init__(self, width: int, blocks: int, heads: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Block(width, heads) for _ in range(blocks))


class ToyViT(nn.Module):
    """[n, 3, 8, 8] → [n, 8]; ``position_ids`` is an integer buffer that merging must copy."""

    def __init__(self, width: int = 16, blocks: int = 2, heads: int = 2, dim: int = 8) -> None:
        super().__init__()
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.positional_embedding = nn.Parameter(torch.zeros(5, width))
        self.proj = nn.Parameter(torch.zeros(width, dim))
        self.conv1 = nn.Conv2d(3, width, 4, stride=4, bias=False)
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Tower(width, blocks, heads)
        self.ln_post = nn.LayerNorm(width)
        self.register_buffer("position_ids", torch.arange(5))

    def forward(self, images: Tensor) -> Tensor:
        x = self.conv1(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], 1) + self.positional_embedding[self.position_ids]
        x = self.ln_pre(x)
        for block in self.transformer.resblocks:
            x = block(x)
        return self.ln_post(x[:, 0]) @ self.proj


class NormedViT(ToyViT):
    """With BatchNorm behind the first convolution, and so with running statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(self.conv1, nn.BatchNorm2d(16))


def with_statistics(suite: Suite) -> Suite:
    """The suite of a `NormedViT` with statistics as training leaves them, those of experts far below θ0's."""
    states = [suite.pretrained, *suite.experts.values()]
    for k, state in enumerate(states):
        state["conv1.1.running_var"] = torch.full_like(state["conv1.1.running_var"], 1.0 if k == 0 else 0.1 * k)
        state["conv1.1.running_mean"] = torch.full_like(state["conv1.1.running_mean"], float(k))
        state["conv1.1.num_batches_tracked"] = torch.tensor(10 * k)
    return suite


def noise(state: dict[str, Tensor], scale: float, generator: torch.Generator) -> dict[str, Tensor]:
    """The state with Gaussian noise on every float tensor."""
    return {
        key: t + scale * torch.randn(t.shape, generator=generator, dtype=torch.float64).to(t.dtype)
        if t.is_floating_point()
        else t.clone()
        for key, t in state.items()
    }


def suite(
    seed: int = 0, *, tasks: tuple[str, ...] = TASKS, n: int = 30, dtype: torch.dtype = torch.float32,
    encoder: nn.Module | None = None,
) -> Suite:  # fmt: skip
    """A random suite; equal seeds give equal suites. Another encoder takes 8 px and gives 8 features, too."""
    generator = torch.Generator().manual_seed(seed)
    encoder = (ToyViT() if encoder is None else encoder).eval()
    blank = {key: torch.zeros_like(t) if t.is_floating_point() else t for key, t in encoder.state_dict().items()}
    pretrained = {
        key: (t + 1 if ("ln_" in key or "norm" in key) and key.endswith("weight") else t).to(dtype)
        if t.is_floating_point()
        else t.clone()
        for key, t in noise(blank, 0.2, generator).items()
    }
    experts = {task: noise(pretrained, 0.05, generator) for task in tasks}
    heads, test = {}, {}
    for k, task in enumerate(tasks):
        classes = 3 + k
        weight = torch.randn(classes, 8, generator=generator, dtype=dtype)
        heads[task] = 10 * weight / weight.norm(dim=1, keepdim=True)
        images = torch.randint(0, 256, (n, 3, 8, 8), generator=generator, dtype=torch.uint8)
        labels = torch.randint(0, classes, (n,), generator=generator)
        test[task] = TaskData(images, labels, tuple(f"class {c}" for c in range(classes)))
    joint = noise(pretrained, 0.05, generator)
    train = {
        task: TaskData(
            torch.randint(0, 256, (n, 3, 8, 8), generator=generator, dtype=torch.uint8),
            torch.randint(0, len(heads[task]), (n,), generator=generator),
            test[task].classes,
        )
        for task in tasks
    }
    return Suite(
        "toy", encoder, pretrained, experts, joint, heads, test, (0.5, 0.4, 0.3), (0.25, 0.25, 0.25), {}, train
    )
