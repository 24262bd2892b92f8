"""State dicts: checks that name the key and the mend, and files that are written whole or not at all."""

from __future__ import annotations

import os
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as hyp
from strategies import assert_equal, checkpoints

from adamerging_lib import state as st
from adamerging_lib.state import CheckpointError, check_state_dicts


def test_good_checkpoints_pass():
    check_state_dicts(*checkpoints(0, 3, torch.float16))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (3.0, "'scale' of 'task_1' is a float, not a tensor"),
        (torch.tensor(1j), "'scale' of 'task_1' is complex or sparse"),
        (torch.eye(2).to_sparse(), "'scale' of 'task_1' is complex or sparse"),
    ],
)
def test_bad_expert_is_named(value, message):
    pretrained, experts = checkpoints(0, 3, torch.float32)
    experts["task_1"]["scale"] = value
    with pytest.raises(CheckpointError, match=message):
        check_state_dicts(pretrained, experts)


def test_packed_tensors_are_refused_by_their_kind():
    with warnings.catch_warnings(action="ignore"):  # torch wants to be rid of them
        quantised = torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)

    class Packed(torch.Tensor):
        """As torchao has them."""

        def __tensor_flatten__(self):
            raise AssertionError("not needed")

    for tensor, kind in ((quantised, "quantised tensor"), (torch.ones(2).as_subclass(Packed), "Packed")):
        with pytest.raises(CheckpointError, match=f"'w' of 'a' is a {kind}, .*: merge the plain models"):
            check_state_dicts({"w": torch.ones(2)}, {"a": {"w": tensor}})


WIDE = [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float32, torch.float64]


def models(base, *tuned):
    return base, {f"t{k}": {"w": t} for k, t in enumerate(tuned)}


@pytest.mark.parametrize("dtype", WIDE)
def test_what_is_not_finite_is_named(dtype):
    good, bad = torch.tensor([1.0, 2.0]).to(dtype), torch.tensor([1.0, float("nan")]).to(dtype)
    for base, tuned, owner in (
        (bad, [good, good], "pretrained"),
        (good, [good, bad], "t1"),
        (bad, [bad, good], "pret"),
    ):
        with pytest.raises(CheckpointError, match=f"'w' of '{owner}.*' holds NaN or Inf"):
            st.vectors_of("w", *models(base, *tuned))
    assert torch.equal(st.vectors_of("w", *models(good, good, good)), torch.zeros(2, 2))


@pytest.mark.parametrize("dtype", WIDE)
@pytest.mark.parametrize("odd", [-float("inf"), float("nan")])
def test_what_is_not_finite_alike_in_all_models_is_not_merged(dtype, odd):
    if dtype == torch.float8_e4m3fn:
        odd = float("nan")  # it has no infinities
    mask = torch.tensor([0.0, odd]).to(dtype)
    assert st.vectors_of("w", *models(mask, mask.clone(), mask.clone())) is None
    other = torch.tensor([odd, 0.0]).to(dtype)
    said = "holds NaN or Inf" if odd != odd else "'w' is a mask of -inf in 'pretrained', 't0', 't1', .*--drop w "
    with pytest.raises(CheckpointError, match=said):
        st.vectors_of("w", *models(mask, mask, other))


@pytest.mark.parametrize("dtype", [*WIDE, torch.float8_e5m2])
def test_casting_keeps_what_fits_and_marks_what_does_not(dtype):
    top = torch.finfo(dtype).max
    wide = torch.tensor([0.5, top, -top, -2.0 * top, 1e308], dtype=torch.float64)
    cast = st.narrowed(wide, dtype)
    assert cast.dtype == dtype and torch.equal(cast[:3].double(), wide[:3])
    assert dtype == torch.float64 or not cast[3:].double().isfinite().any()


def test_differences_too_large_for_their_type():
    big = torch.tensor([3e38])
    with pytest.raises(CheckpointError, match="'w' of 't1' differs from pretrained by more than float32 can hold"):
        st.vectors_of("w", *models(big, big, -big))
    assert st.vectors_of("w", *models(big.double(), -big.double())).isfinite().all()


@given(hyp.lists(hyp.floats(0, 2.0**120, width=32), min_size=1, max_size=5), hyp.sampled_from(WIDE[:2] + WIDE[3:]))
def test_the_mean_of_variances_lies_between_them(values, dtype):
    tensors = {f"t{k}": torch.tensor([v]).to(dtype).clamp(max=torch.finfo(dtype).max) for k, v in enumerate(values)}
    mean = st.averaged("bn.running_var", torch.ones(1), tensors)
    assert mean.dtype == dtype and min(tensors.values()) <= mean <= max(tensors.values())


@pytest.mark.parametrize(("name", "value", "message"), [
    ("bn.running_var", -0.5, "'bn.running_var' of 'a' is -0.5, and no variance is below zero"),
    ("bn.running_var", float("nan"), "'bn.running_var' of 'a' holds NaN"),
    ("bn.running_mean", float("inf"), "'bn.running_mean' of 'a' holds NaN or Inf"),
])  # fmt: skip
def test_statistics_that_cannot_be(name, value, message):
    with pytest.raises(CheckpointError, match=message):
        st.averaged(name, torch.ones(2), {"a": torch.tensor([1.0, value])})
    with pytest.raises(CheckpointError, match=message.replace("'a'", "'pretrained'")):
        st.averaged(name, torch.tensor([1.0, value]), {"a": torch.ones(2)})
    assert st.averaged("bn.running_mean", torch.zeros(1), {"a": torch.tensor([-1.0])}) == -1


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int32, torch.int64, torch.bool])
def test_many_whole_numbers_that_differ_are_codes(dtype):
    codes = torch.arange(64).remainder(2).to(dtype)
    assert not st.check_codes("w", codes, {"a": codes.clone(), "b": codes.to(torch.uint8)})
    other = (codes == 0).to(dtype)
    with pytest.raises(CheckpointError, match="'w' holds 64 whole numbers, which differ .* 'b'.*--drop w"):
        st.check_codes("w", codes, {"a": codes, "b": other})
    assert st.check_codes("w", codes[:63], {"a": other[:63]})
    assert st.check_codes("a.position_ids", codes, {"a": other})


def test_masks_of_pruning_that_differ():
    mask = torch.tensor([0.0, 1.0])
    assert not st.check_codes("a.weight_mask", mask, {"a": mask})
    with pytest.raises(CheckpointError, match="pruned at other places.*prune.remove"):
        st.check_codes("a.weight_mask", mask, {"a": 1 - mask})


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
