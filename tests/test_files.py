"""Checkpoints on disk: read lazily as they are, written tensor by tensor as safetensors reads them, or not at all."""

from __future__ import annotations

import os
import shlex

import pytest
import torch
from safetensors.torch import save_file
from shards import shards
from strategies import assert_equal, checkpoints

from adamerging_lib import TaskVectors, cli
from adamerging_lib import state as st
from adamerging_lib.files.checkpoint import CheckpointFile, writing
from adamerging_lib.files.lazy import lazy_task_vectors
from adamerging_lib.state import CheckpointError

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


def mixed(seed: int = 0) -> dict[str, torch.Tensor]:
    """Every dtype that models hold, odd sizes, a scalar, an empty tensor, a name beyond ASCII."""
    generator = torch.Generator().manual_seed(seed)
    state = {str(dtype): torch.randn(3, 5, generator=generator).to(dtype) for dtype in DTYPES}
    state |= {"eight": torch.randn(7, generator=generator).to(torch.float8_e4m3fn), "scale": torch.tensor(2.0)}
    return state | {"größe": torch.arange(3), "mask": torch.tensor([True]), "none": torch.zeros(0, 4)}


def test_a_file_is_the_state_dict_in_it(tmp_path):
    state = mixed()
    st.save(tmp_path / "a.safetensors", state, {"note": "ä"})
    file = CheckpointFile(tmp_path / "a.safetensors")
    assert_equal(dict(file), st.load(tmp_path / "a.safetensors"))
    assert file.keys() == state.keys() and len(file) == len(state) and file.metadata == {"note": "ä"}
    assert all(file.layout[key].is_meta and file.layout[key].dtype == t.dtype for key, t in state.items())
    assert file.digests() == {"a.safetensors": st.sha256(tmp_path / "a.safetensors")}


def test_a_checkpoint_in_several_files_is_one(tmp_path):
    state = mixed()
    index = shards(tmp_path, state)
    for path in (index, tmp_path):
        file = CheckpointFile(path)
        assert_equal(dict(sorted(file.items())), dict(sorted(state.items())))
        assert len(file.digests()) == len(file.files) == 2
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match="model-00002-of-00002.safetensors, which is not beside it"):
        CheckpointFile(index)
    save_file({}, tmp_path / "model-00002-of-00002.safetensors")
    with pytest.raises(CheckpointError, match="model-00002-of-00002.safetensors lacks .*, which .* promises"):
        CheckpointFile(tmp_path)
    index.write_text("{}")
    with pytest.raises(CheckpointError, match="is no index of a checkpoint"):
        CheckpointFile(tmp_path)


def test_folder_with_one_file(tmp_path):
    with pytest.raises(CheckpointError, match="is a folder without model.safetensors"):
        CheckpointFile(tmp_path)
    st.save(tmp_path / "model.safetensors", mixed())
    assert CheckpointFile(tmp_path).path.name == "model.safetensors"


@pytest.mark.parametrize("size", [0, 5, 100, -1])
def test_a_file_that_is_cut_short_is_named(tmp_path, size):
    whole, cut = tmp_path / "whole.safetensors", tmp_path / "cut.safetensors"
    st.save(whole, mixed())
    cut.write_bytes(whole.read_bytes()[:size])
    with pytest.raises(CheckpointError, match=r"cut.safetensors is (empty|not a readable .*): .*fetch it again"):
        CheckpointFile(cut)


def test_a_pickle_is_refused_with_a_conversion_that_works(tmp_path):
    state = {"a": torch.randn(3), "b": torch.arange(2)}
    torch.save(state, tmp_path / "my model.pt")
    with pytest.raises(CheckpointError, match="is a pickle, and reading one can run code") as error:
        CheckpointFile(tmp_path / "my model.pt")
    program, *arguments = shlex.split(str(error.value).splitlines()[1])
    assert program == "adamerging" and cli.main(arguments) == 0
    assert_equal(dict(sorted(CheckpointFile(tmp_path / "my model.safetensors").items())), state)


def write(path, file, state=None, metadata=None):
    with writing(path, file, metadata or {}) as put:
        for key, t in (state or file).items():
            put(key, t)


def test_written_tensor_by_tensor_is_what_safetensors_writes(tmp_path):
    state = mixed()
    st.save(tmp_path / "a.safetensors", state)
    file = CheckpointFile(tmp_path / "a.safetensors")
    write(tmp_path / "deep/b.safetensors", file, dict(reversed(state.items())), {"note": "ä", "empty": ""})
    assert_equal(st.load(tmp_path / "deep/b.safetensors"), st.load(tmp_path / "a.safetensors"))
    assert st.load_metadata(tmp_path / "deep/b.safetensors") == {"note": "ä", "empty": ""}
    with open(tmp_path / "deep/b.safetensors", "rb") as handle:
        assert int.from_bytes(handle.read(8), "little") % 8 == 0  # numbers begin at a multiple of eight bytes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s | {"scale": torch.zeros(2)}, r"'scale' came out as torch.float32 \[2\]"),
        (lambda s: s | {"scale": torch.tensor(1.0, dtype=torch.float64)}, "'scale' came out as torch.float64"),
        (lambda s: {key: t for key, t in s.items() if key != "scale"}, r"nothing was written for \['scale'\]"),
    ],
)
def test_a_wrong_tensor_leaves_the_old_file(tmp_path, change, message):
    st.save(tmp_path / "a.safetensors", mixed())
    (tmp_path / "b.safetensors").write_text("old")
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "b.safetensors", CheckpointFile(tmp_path / "a.safetensors"), change(mixed(1)))
    assert (tmp_path / "b.safetensors").read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["a.safetensors", "b.safetensors"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_lazy_task_vectors_are_the_loaded_ones(tmp_path, dtype):
    pretrained, experts = checkpoints(3, 3, dtype)
    for name, state in {"base": pretrained, **experts}.items():
        st.save(tmp_path / f"{name}.safetensors", state)
    files = {task: CheckpointFile(tmp_path / f"{task}.safetensors") for task in experts}
    reads = []
    lazy = lazy_task_vectors(CheckpointFile(tmp_path / "base.safetensors"), files, lambda: reads.append(1))
    eager = TaskVectors.from_state_dicts(pretrained, experts)
    assert lazy.vectors.keys() == eager.vectors.keys() and not reads
    for key, t in lazy.vectors.items():
        assert t.dtype == eager.vectors[key].dtype and torch.equal(t, eager.vectors[key])
    assert len(reads) == len(lazy.vectors) and "position_ids" not in lazy.vectors
    with pytest.raises(KeyError):
        lazy.vectors["position_ids"]


def test_nan_is_found_when_it_is_read(tmp_path):
    pretrained, experts = checkpoints(0, 2, torch.float16)
    experts["task_1"]["scale"].fill_(float("nan"))
    for name, state in {"base": pretrained, **experts}.items():
        st.save(tmp_path / f"{name}.safetensors", state)
    files = {task: CheckpointFile(tmp_path / f"{task}.safetensors") for task in experts}
    lazy = lazy_task_vectors(CheckpointFile(tmp_path / "base.safetensors"), files)
    with pytest.raises(CheckpointError, match="'scale' of 'task_1' holds NaN or Inf"):
        dict(lazy.vectors)
