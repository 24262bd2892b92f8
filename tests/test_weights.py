"""Where weights lie in what torch.save kept: found where one thing can be meant, listed and chosen where several."""

from __future__ import annotations

import argparse
import collections

import pytest
import torch
from strategies import assert_equal
from torch import nn

from adamerging_lib import cli
from adamerging_lib import state as st
from adamerging_lib.checkpoints import convert
from adamerging_lib.checkpoints.inert import Record, Storage, Stored
from adamerging_lib.checkpoints.weights import find_weights
from adamerging_lib.state import CheckpointError

T = Stored(Storage(torch.float32, "0", 4), 0, (4,), (1,))
ONE = Stored(Storage(torch.float32, "0", 4), 0, (), ())
W = {"layers.0.weight": T, "layers.0.bias": T}
OPTIMIZER = {"state": {0: {"exp_avg": T, "step": ONE}}, "param_groups": [{"lr": 0.1}]}


def names(content, key=None):
    found = find_weights(content, "m.pt", key)
    return list(found.tensors), found.key, found.entries


@pytest.mark.parametrize(
    ("content", "key", "entries"),
    [
        (W, "", ()),
        ({"module": W, "optimizer": OPTIMIZER, "global_steps": 7}, "module", ("optimizer", "global_steps")),
        ({"net": W, "epoch": 3, "acc": ONE}, "net", ("epoch", "acc")),
        ({"state_dict": W, "ema": W}, "state_dict", ("ema",)),
        ({"model": W, "ema": W, "opt": OPTIMIZER}, "model", ("ema", "opt")),
        ({"model": {"name": "vit"}, "weights": W}, "weights", ("model",)),
        ({"wrapper": {"inner": {"deep": W}}}, "wrapper.inner.deep", ()),
        ({"generator": W, "lr_schedulers": [{"x": T}], "rng_state": T, "anything": OPTIMIZER}, None, None),
        ([W], "0", ()),
        ((W, OPTIMIZER), "0", ("1",)),
        (W | {"model_name": "ViT"}, "", ("model_name",)),
        ({"config": argparse.Namespace, "net": W}, "net", ("config",)),
    ],
)
def test_weights_are_found_where_one_thing_can_be_meant(content, key, entries):
    if key is None:  # a random state is a tensor beside the weights
        with pytest.raises(CheckpointError, match=r"1 tensor at the top and more under generator \(2 tensors\)"):
            names(content)
        return
    assert names(content) == (list(W), key, entries)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"encoder": W, "head": {"weight": T}}, r"encoder \(2 tensors\), head \(1 tensor\): .*--key encoder .*--key"),
        ({"weight": T, "sub": W}, r"1 tensor at the top and more under sub \(2 tensors\)"),
        ({"state_dict": {"a": T, "inner": W}}, r"inner \(2 tensors\) in 'state_dict': .* --key state_dict.inner"),
        ([W, W], r"tensors under 0 \(2 tensors\), 1 \(2 tensors\)"),
        ({"epoch": 3, "optimizer": OPTIMIZER}, r"only what trainers keep .* optimizer \(2 tensors\).*--key optimizer"),
        ({"epoch": 3, "args": {}}, "holds no tensors, only epoch, args: name the file of the weights"),
        ({}, "holds no tensors, only none"),
        ([1, 2], "holds a list, not a model or a state dict"),
        (3, "holds a int, not a model"),
        (T, "holds one tensor without a name"),
        ({1: T, "1": T}, "two tensors that would be called '1'"),
        ({"w": Record(("numpy", "x"))}, "holds no tensors"),
    ],
)
def test_what_could_mean_several_things_is_listed(content, message):
    if isinstance(content, dict) and isinstance(content.get("w"), Record):
        content["w"].name = type("Name", (), {"module": "numpy.core.multiarray"})()
        message = "what 'w' holds is NumPy's: save it with torch.from_numpy"
    with pytest.raises(CheckpointError, match=message):
        names(content)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("head", ["weight"]),
        ("encoder", ["layers.0.weight", "layers.0.bias"]),
        (".", ["encoder.layers.0.weight", "encoder.layers.0.bias", "head.weight", "a.b.deep.0"]),
        ("a.b.deep", ["0"]),
        ("a.b", ["deep.0"]),
    ],
)
def test_a_key_chooses(key, expected):
    content = {"encoder": W, "head": {"weight": T}, "a.b": {"deep": [T]}, "epoch": 3}
    tensors, found, _ = names(content, key)
    assert tensors == expected and found == ("" if key == "." else key)


def test_a_key_that_names_nothing():
    content = {"encoder": W, "weight": T, "args": {"lr": 1}}
    for key, message in (
        ("encodr", "no entry 'encodr': did you mean 'encoder'.* there are tensors in encoder, weight; --key . takes"),
        ("weight", "no entry 'weight'"),
        ("encoder.layers", "no entry 'encoder.layers'"),
        ("args", "'args' of m.pt holds no tensors"),
    ):
        with pytest.raises(CheckpointError, match=message):
            names(content, key)


def test_containers_without_end_or_shared_many_times():
    itself = {"a": T}
    itself["again"] = itself
    shared = {"w": T}
    for _ in range(40):
        shared = {"left": shared, "right": shared}
    deep = [T]
    for _ in range(20_000):
        deep = [deep]
    for content in (itself, shared):
        with pytest.raises(CheckpointError, match="m.pt holds"):
            names(content)
        with pytest.raises(CheckpointError, match="without end|two tensors"):
            names(content, ".")
    with pytest.raises(CheckpointError, match="without end"):
        names(deep, ".")


class Config(dict):
    """A kind of dict, as configurations are."""


@pytest.mark.parametrize("legacy", [False, True])
def test_through_files(tmp_path, legacy):
    weights = {"layers.0.weight": torch.randn(4, 4), "layers.0.bias": torch.randn(4)}
    model = nn.Linear(4, 4)
    optimizer = {"state": {0: {"exp_avg": torch.ones(4)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    cases = {
        "module": {"module": weights, "optimizer": optimizer, "steps": 7},
        "list": {"layers": [weights["layers.0.weight"], weights["layers.0.bias"]], "epoch": 1},
        "whole model": {"model": model, "epoch": 3, "optimizer": optimizer},
        "settings": {"weights": weights, "args": argparse.Namespace(lr=1), "hyper": Config(a=1)},
        "counter": {"net": collections.OrderedDict(weights), "milestones": collections.Counter([3])},
    }
    for name, content in cases.items():
        torch.save(content, tmp_path / "m.pt", _use_new_zipfile_serialization=not legacy)
        done = convert(tmp_path / "m.pt", tmp_path / "m.safetensors", kind="state_dict", force=True)
        written = st.load(tmp_path / "m.safetensors")
        expected = dict(model.state_dict()) if name == "whole model" else weights
        expected = dict(zip("01", weights.values(), strict=True)) if name == "list" else expected
        assert_equal(dict(sorted(written.items())), dict(sorted(expected.items())))
        assert done.key == next(iter(content)) == st.load_metadata(tmp_path / "m.safetensors")["key"]
        assert done.dropped == tuple(content)[1:]


def test_an_empty_result_replaces_nothing(tmp_path, capsys):
    st.save(tmp_path / "good.safetensors", {"a": torch.ones(2)})
    before = (tmp_path / "good.safetensors").read_bytes()
    torch.save({"epoch": 3, "note": "none"}, tmp_path / "m.pt")
    st.save(tmp_path / "none.safetensors", {})
    torch.save({}, tmp_path / "none.pt")
    for source in ("m.pt", "none.pt", "none.safetensors"):
        words = [str(tmp_path / source), str(tmp_path / "good.safetensors")]
        assert cli.main(["convert", "--kind", "state_dict", "--force", *words]) == 2
        assert source in capsys.readouterr().err and (tmp_path / "good.safetensors").read_bytes() == before


def test_the_command_chooses_strips_and_drops(tmp_path, capsys):
    weights = {"model.body.weight": torch.ones(3), "model.head.weight": torch.ones(2), "model.ids": torch.arange(2)}
    torch.save({"net": weights, "ema": weights, "epoch": 3}, tmp_path / "m.pt")
    call = ["convert", "--kind", "state_dict", str(tmp_path / "m.pt"), str(tmp_path / "m.safetensors")]
    assert cli.main(call) == 2
    assert "net (3 tensors), ema (3 tensors): choose one with --key net" in capsys.readouterr().err
    assert cli.main([*call, "--key", "ema", "--drop", "*.ids", "--drop", "model.head.*", "--strip", "model"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"'ema' of {tmp_path / 'm.pt'} is a state dict\n")
    assert "dropped 4 entries: model.head.weight, model.ids, net, epoch" in said
    assert list(st.load(tmp_path / "m.safetensors")) == ["body.weight"]
    for words, message in (
        (["--key", "ema", "--drop", "*"], "gives nothing to write: nothing of it is left"),
        (["--key", "ema", "--drop", "head"], "no tensor's name fits 'head'"),
        (["--key", "ema", "--strip", "net"], "no tensor's name begins with 'net'"),
    ):
        with pytest.raises(ValueError, match=message):
            convert(*call[3:], kind="state_dict", force=True, **{
                "key": "ema", **({"drop": [words[3]]} if words[2] == "--drop" else {"strip": words[3]})
            })  # fmt: skip
    with pytest.raises(CheckpointError, match="is not a file of torch.save, it has no entries: leave --key out"):
        convert(tmp_path / "m.safetensors", tmp_path / "n.safetensors", kind="state_dict", key="ema")
