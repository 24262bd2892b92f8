"""Adapters that peft trained (to random numbers) on tiny models, with what peft itself makes of them."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from adamerging_lib.runtime.compat import import_torchvision
from adamerging_lib.state import save

import_torchvision()  # which peft imports by transformers
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import peft
    import transformers


@dataclass(frozen=True)
class Adapted:
    """An adapter on disk.

    Arguments:
        base: file of θ0.
        folder: of the adapter.
        merged: state dict after peft's merge_and_unload.
    """

    base: Path
    folder: Path
    merged: dict[str, Tensor]


def quiet(call, *args, **named):
    """What a call of peft or transformers gives, without its warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call(*args, **named)


def config(**settings):
    """LoraConfig of rank 2, α = 3."""
    return quiet(peft.LoraConfig, **{"r": 2, "lora_alpha": 3, **settings})


def train(model: nn.Module, seed: int = 0) -> None:
    """Trainable numbers become random ones."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))


def stored(model: nn.Module) -> dict[str, Tensor]:
    """The state dict as transformers saves it: of tied tensors the first."""
    seen: set[int] = set()
    names = {}
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() not in seen or not tensor.numel():
            names[name] = tensor.detach().clone()
        seen.add(tensor.data_ptr())
    return names


def adapt(model: nn.Module, folder: Path, seed: int = 0, whole: bool = False, **settings) -> Adapted:
    """Train an adapter of a model, save both, merge it with peft.

    Arguments:
        model: is used up.
        folder: for both.
        seed: of the numbers.
        whole: write tied tensors of the base twice.
        settings: of LoraConfig.
    """
    base = folder / "base.safetensors"
    save(base, {k: t.clone() for k, t in model.state_dict().items()} if whole else stored(model))
    tuned = quiet(peft.get_peft_model, model, config(**settings))
    train(tuned, seed)
    place = folder / f"adapter{seed}"
    quiet(tuned.save_pretrained, place)
    return Adapted(base, place, dict(quiet(tuned.merge_and_unload).state_dict()))


def rewrite(folder: Path, **changes) -> None:
    """Other values in an adapter's configuration; None takes a field away."""
    path = folder / "adapter_config.json"
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


class Net(nn.Module):
    """Convolutions of every kind, attention of torch, an embedding, a norm, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.config = {}
        self.emb = nn.Embedding(11, 6)
        self.attn = nn.MultiheadAttention(6, 2, batch_first=True)
        self.fc = nn.Linear(6, 6)
        self.norm = nn.LayerNorm(6)
        self.c1 = nn.Conv1d(6, 4, 3)
        self.c1x1 = nn.Conv2d(4, 5, 1)
        self.c2 = nn.Conv2d(5, 3, 3, padding=1)
        self.c3 = nn.Conv3d(3, 4, (2, 3, 3), padding=1)
        self.grouped = nn.Conv2d(4, 6, 3, groups=2)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.emb(x)
        x = self.norm(self.fc(x + self.attn(x, x, x)[0]))
        y = self.c2(self.c1x1(self.c1(x.mT).unsqueeze(-1)))
        return self.head(x).mean() + self.c3(y.unsqueeze(2)).mean()


def bert(**extra):
    sizes = {"vocab_size": 11, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 2, "max_position_embeddings": 8, "num_labels": 3}
    return transformers.BertForSequenceClassification(transformers.BertConfig(**sizes, **extra)).eval()


def gpt2():
    sizes = {"vocab_size": 11, "n_positions": 8, "n_embd": 8, "n_layer": 2, "n_head": 2, "num_labels": 3}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}
    return transformers.GPT2ForSequenceClassification(transformers.GPT2Config(**sizes, **ids)).eval()


def t5():
    sizes = {"vocab_size": 11, "d_model": 8, "d_kv": 4, "d_ff": 12, "num_layers": 2, "num_heads": 2}
    config = transformers.T5Config(**sizes, decoder_start_token_id=0)
    return transformers.T5ForConditionalGeneration(config).eval()


def vit():
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12}
    config = transformers.ViTConfig(**sizes, image_size=8, patch_size=4, num_labels=3)
    return transformers.ViTForImageClassification(config).eval()


def llama(**extra):
    sizes = {"vocab_size": 11, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 3}
    sizes |= {"num_attention_heads": 2, "num_key_value_heads": 1, "bos_token_id": 1, "eos_token_id": 2}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, **extra)).eval()


MODELS = {"bert": bert, "gpt2": gpt2, "t5": t5, "vit": vit, "llama": llama, "net": Net}


def made(name: str, seed: int = 0) -> nn.Module:
    """A tiny model with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return quiet(MODELS[name]).eval()
