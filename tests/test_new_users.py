"""As a new user would: models as transformers and peft save them, each wrong in one way, checked and merged.

At each, either a right result, or one line that says what is wrong and a command that mends it, which is then run.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch
from adapted import peft, quiet, transformers

from adamerging_lib import state
from adamerging_lib.cli import main

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


def bert(seed, labels=None):
    """A tiny BERT; with a head of its own where labels are given, on the same body."""
    torch.manual_seed(0)
    body = transformers.BertModel(transformers.BertConfig(vocab_size=50, max_position_embeddings=16, **SMALL))
    nudge(body, seed)
    if labels is None:
        return body
    torch.manual_seed(seed)
    config = transformers.BertConfig(vocab_size=50, max_position_embeddings=16, num_labels=labels, **SMALL)
    model = transformers.BertForSequenceClassification(config)
    model.bert.load_state_dict(body.state_dict(), strict=False)
    return model


def nudge(model, seed, share=0.05):
    """Move every matrix by a change of low rank; seed 0 is the base."""
    if seed:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for t in model.parameters():
                if t.dim() > 1:
                    flat = t.reshape(len(t), -1)
                    left, right = (torch.randn(size, generator=generator) for size in flat.shape)
                    change = left[:, None] * right
                    t += (change * share * flat.norm() / change.norm()).view_as(t)


def save(model, folder, **options):
    quiet(model.save_pretrained, folder, **options)
    return folder


def advised(text):
    found = re.search(r"^  adamerging (?:.*\\\n)*.*$", text, re.MULTILINE)
    return shlex.split(found[0].replace("\\\n", " "))[1:]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def check(code, *experts, base="base", capsys=None):
    """What the doctor says of models in folders, with this exit code."""
    pairs = [text for name in experts for text in ("--expert", f"{name.partition('.')[0]}={name}")]
    assert main(["check", "--pretrained", base, *pairs]) == code
    return capsys.readouterr().out


def merged(text):
    """The command that was advised, run, and what it wrote."""
    assert main(advised(text)) == 0
    return state.load("merged.safetensors")


def test_two_berts_with_heads_of_different_size(capsys):
    save(bert(0, 2), "base"), save(bert(1, 3), "cars"), save(bert(2, 5), "law")
    out = check(2, "cars", "law", capsys=capsys)
    assert "classifier" in out and "--drop 'classifier.*'" in out
    assert main(["merge", "--method", "ties", "--pretrained", "base", "--expert", "cars=cars", "--expert", "law=law",
                 "--out", "m.safetensors"]) == 2  # fmt: skip
    assert "--drop 'classifier.*'" in capsys.readouterr().err
    result = merged(out)
    assert not any(key.startswith("classifier") for key in result) and len(result) > 30


def test_heads_that_the_base_has_not(capsys):
    save(bert(0), "base"), save(bert(1, 3), "cars"), save(bert(2, 5), "law")
    out = check(2, "cars", "law", capsys=capsys)
    assert "--strip bert." in out and "--drop" in out
    assert "embeddings.word_embeddings.weight" in merged(out)


def test_a_folder_of_adapters(capsys):
    torch.manual_seed(0)
    save(bert(0), "base")
    for seed, name in enumerate(["cars", "law"], 1):
        settings = quiet(peft.LoraConfig, r=2 * seed, lora_alpha=8 * seed, target_modules=["query", "value"])
        torch.manual_seed(seed)
        model = quiet(peft.get_peft_model, bert(0), settings)
        with torch.no_grad():
            for key, t in model.named_parameters():
                if "lora_" in key:
                    t.copy_(torch.randn(t.shape) / 20)
        quiet(model.save_pretrained, name)
    out = check(0, "cars", "law", capsys=capsys)
    result = merged(out)
    assert torch.equal(result["embeddings.word_embeddings.weight"], bert(0).embeddings.word_embeddings.weight)
    alone = main(["check", "--expert", "cars=cars", "--expert", "law=law"])
    assert alone == 2 and "give the base that it changes as --pretrained" in " ".join(capsys.readouterr().out.split())
    assert main(["check", "--pretrained", "cars", "--expert", "law=law"]) == 2
    assert "is an adapter" in " ".join(capsys.readouterr().out.split())


def test_a_resnet_with_batchnorm(capsys):
    def resnet(seed):
        torch.manual_seed(0)
        config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=3)
        model = transformers.ResNetForImageClassification(config)
        nudge(model, seed)
        for key, t in model.named_buffers():
            if key.endswith("running_var") and seed:
                t.fill_(0.3)
        return model

    save(resnet(0), "base"), save(resnet(1), "cars"), save(resnet(2), "law")
    out = check(1, "cars", "law", capsys=capsys)
    assert "must be recalibrated" in " ".join(out.split()) and "convolutions" in out
    result = merged(out)
    assert "must be recalibrated" in " ".join(capsys.readouterr().err.split())
    variances = [t for key, t in result.items() if key.endswith("running_var")]
    assert variances and all(torch.allclose(t, torch.full_like(t, 0.3)) for t in variances)


def test_a_t5_in_shards(capsys):
    def t5(seed):
        torch.manual_seed(0)
        sizes = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "vocab_size": 60}
        model = transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes))
        nudge(model, seed)
        return model

    for seed, name in enumerate(["base", "cars", "law"]):
        save(t5(seed), name, max_shard_size="40KB")
    out = check(0, "cars", "law", capsys=capsys)
    assert merged(out).keys() >= {"shared.weight", "decoder.block.1.layer.2.DenseReluDense.wo.weight"}


def test_a_quantised_model(capsys):
    save(bert(0), "base"), save(bert(1), "cars"), save(bert(2), "whole")
    packed = dict(bert(2).state_dict())
    for key, t in list(packed.items()):
        if t.dim() == 2 and "layer" in key:
            packed[key] = (t / t.abs().max() * 127).round().to(torch.int8)
            packed[key.replace("weight", "SCB")] = t.abs().amax(1)
    state.save("law.safetensors", packed)
    out = " ".join(check(2, "cars", "law.safetensors", "whole", capsys=capsys).split())
    assert "expert 'law' is quantised" in out and "then quantise the result" in out
    assert main(["merge", "--method", "ties", "--pretrained", "base", "--expert", "cars=cars", "--expert",
                 "law=law.safetensors", "--out", "m.safetensors"]) == 2  # fmt: skip
    assert "quantised" in capsys.readouterr().err


def test_two_files_of_the_same_expert(capsys):
    save(bert(0), "base"), save(bert(1), "cars"), save(bert(1), "copy"), save(bert(2), "law")
    out = check(2, "cars", "copy", "law", capsys=capsys)
    assert "experts 'cars' and 'copy' are the same model: leave 'copy' out" in out
    assert "copy=copy" not in " ".join(advised(out))
    merged(out)


def test_an_interrupted_download(capsys):
    save(bert(0), "base"), save(bert(1), "cars"), save(bert(2), "law"), save(bert(3), "signs")
    file = Path("law/model.safetensors")
    file.write_bytes(file.read_bytes()[:20_000])
    out = check(2, "cars", "law", "signs", capsys=capsys)
    assert "fetch it again" in out and "leave out 'law'" in out
    merged(out)
    assert main(["merge", "--method", "ties", "--pretrained", "base", "--expert", "law=law", "--expert", "cars=cars",
                 "--out", "m.safetensors"]) == 2  # fmt: skip
    assert "fetch it again" in capsys.readouterr().err
