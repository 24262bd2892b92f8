"""State dicts: checks that name the key and the mend, and files that are written whole or not at all."""

from __future__ import annotations

import os

import pytest
import torch
from strategies import assert_equal, checkpoints

from adamerging_lib import state as st
from adamerging_lib.state import CheckpointError, check_state_dicts


def test_good_checkpoints_pass():
    check_state_dicts(*checkpoints(0, 3, torch.float16))


def spoil(experts, key, value):
    return {**experts, "task_1": {**experts["task_1"], key: value}}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("conv1.weight", torch.zeros(3, 2), r"'conv1.weight' of expert 'task_1' has shape \[3, 2\].*\[2, 3\]"),
        ("conv1.weight", torch.zeros(2, 3, dtype=torch.float16), "'conv1.weight' of expert 'task_1' has dtype .*cast"),
        ("conv1.weight", torch.full((2, 3), float("nan")), "'conv1.weight' of 'task_1' holds NaN or Inf"),
        ("scale", torch.tensor(float("inf")), "'scale' of 'task_1' holds NaN or Inf"),
        ("scale", 3.0, "'scale' of 'task_1' is a float, not a tensor"),
        ("scale", torch.tensor(1j), "complex"),
        ("extra.weight", torch.zeros(1), "unexpected extra.weight"),
    ],
)
def test_bad_expert_is_named(key, value, message):
    pretrained, experts = checkpoints(0, 3, torch.float32)
    with pytest.raises(CheckpointError, match=message):
        check_state_dicts(pretrained, spoil(experts, key, value))


def test_missing_keys_are_named():
    pretrained, experts = checkpoints(0, 2, torch.float32)
    del experts["task_0"]["scale"]
    with pytest.raises(CheckpointError, match="expert 'task_0'.*missing scale"):
        check_state_dicts(pretrained, experts)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_nan_in_narrow_floats(dtype):
    bad = {"w": torch.tensor([float("nan")]).to(dtype)}
    with pytest.raises(CheckpointError, match="'w' of 'pretrained' holds NaN"):
        check_state_dicts(bad, {"a": bad})


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e5m2])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_every_place_is_looked_at(dtype, bad):
    for size in (1, 2, 17, 64, 257):
        for place in range(size):
            values = torch.linspace(-1, 1, size)
            assert st.is_finite(values.to(dtype))
            values[place] = bad
            assert not st.is_finite(values.to(dtype)), (size, place)
    assert st.is_finite(torch.zeros(0, 3, dtype=dtype)) and st.is_finite(torch.zeros((), dtype=dtype))


def test_empty_inputs():
    pretrained, experts = checkpoints(0, 1, torch.float32)
    with pytest.raises(CheckpointError, match="no experts"):
        check_state_dicts(pretrained, {})
    with pytest.raises(CheckpointError, match="'pretrained' is empty"):
        check_state_dicts({}, experts)
    with pytest.raises(CheckpointError, match="task name ''"):
        check_state_dicts(pretrained, {"": experts["task_0"]})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_save_and_load_keep_every_bit(tmp_path, dtype):
    pretrained, _ = checkpoints(1, 1, dtype)
    path = tmp_path / "deep" / "a.safetensors"
    st.save(path, {**pretrained, "turned": pretrained["conv1.weight"].t()}, {"note": "ä"})
    back = st.load(path)
    assert torch.equal(back.pop("turned"), pretrained["conv1.weight"].t())
    assert_equal(dict(sorted(back.items())), dict(sorted(pretrained.items())))
    assert st.load_metadata(path) == {"note": "ä"}


def test_tied_tensors_are_saved_under_both_names(tmp_path):
    shared = torch.randn(3)
    st.save(tmp_path / "a.safetensors", {"a": shared, "b": shared})
    assert st.load(tmp_path / "a.safetensors").keys() == {"a", "b"}


def test_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="killed"), st.atomic(path) as temporary:
        temporary.write_text("new, half")
        raise RuntimeError("killed")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


def test_load_names_the_file(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint at .*nowhere"):
        st.load(tmp_path / "nowhere")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"\x07\xff not a checkpoint")
    for function in (st.load, st.load_metadata):
        with pytest.raises(CheckpointError, match=r"broken\.safetensors is not a readable safetensors"):
            function(broken)


def test_sha256(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert st.sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_fingerprint_sees_names_shapes_dtypes_and_values_but_not_order():
    base = {"a": torch.zeros(2, 3), "b": torch.ones(()), "c": torch.zeros(0), "d": torch.tensor([True])}
    reference = st.fingerprint(base)
    assert st.fingerprint(dict(reversed(base.items()))) == reference
    assert st.fingerprint({**base, "a": torch.zeros(3, 2).t()}) == reference
    others = [
        {**base, "a": torch.zeros(3, 2)},
        {**base, "a": torch.zeros(2, 3, dtype=torch.int32)},
        {**base, "a": torch.eye(2, 3)},
        {("z" if key == "a" else key): t for key, t in base.items()},
    ]
    assert len({reference, *map(st.fingerprint, others)}) == 5
