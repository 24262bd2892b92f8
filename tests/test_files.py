"""Checkpoints on disk: read lazily as they are, written tensor by tensor as safetensors reads them, or not at all."""

from __future__ import annotations

import json
import os
import shlex

import pytest
import torch
from safetensors.torch import save_file
from shards import shards
from strategies import assert_equal, checkpoints

from adamerging_lib import TaskVectors, cli
from adamerging_lib import state as st
from adamerging_lib.checkpoints import convert
from adamerging_lib.files import checkpoint
from adamerging_lib.files.checkpoint import CheckpointFile, writing
from adamerging_lib.files.header import read_header
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
    with pytest.raises(CheckpointError, match="is not an index of a checkpoint"):
        CheckpointFile(tmp_path)


@pytest.mark.parametrize("order", [["new", "old"], ["old", "new"]])
def test_the_index_decides_for_every_name(tmp_path, order):
    """An overlay holds what counts; the shard below it still holds what the index no longer names, and more."""
    st.save(tmp_path / "new.safetensors", {"a": torch.tensor([1.0])})
    st.save(tmp_path / "old.safetensors", {"a": torch.tensor([100.0]), "b": torch.tensor([2.0]), "c": torch.ones(3)})
    where = {"new": {"a": "new.safetensors"}, "old": {"b": "old.safetensors"}}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": where[order[0]] | where[order[1]]}))
    file = CheckpointFile(tmp_path)
    assert {key: t.tolist() for key, t in file.items()} == {"a": [1.0], "b": [2.0]}
    assert file.keys() == file.layout.keys() == file.formats.keys() == {"a", "b"} and "c" not in file
    index.unlink()
    with pytest.raises(CheckpointError, match="holds several checkpoints, new.safetensors, old.safetensors"):
        CheckpointFile(tmp_path)


@pytest.mark.parametrize("first", [0, 1])
def test_numbered_files_without_an_index(tmp_path, first):
    state = mixed()
    names = [f"model-{n + first:05}-of-00003.safetensors" for n in range(3)]
    for n, name in enumerate(names):
        st.save(tmp_path / name, {key: t for place, (key, t) in enumerate(state.items()) if place % 3 == n})
    assert_equal(dict(sorted(CheckpointFile(tmp_path).items())), dict(sorted(state.items())))
    with pytest.raises(CheckpointError, match=f"{names[1]} is only a part, one of 3 files: name the folder"):
        CheckpointFile(tmp_path / names[1])
    assert 0 < len(CheckpointFile(tmp_path / names[1], part=True)) < len(state)
    st.save(tmp_path / names[2], {"mask": torch.tensor([True]), "scale": torch.tensor(1.0)})
    with pytest.raises(CheckpointError, match="lies in .* and in .*, and no index says which of them counts"):
        CheckpointFile(tmp_path)
    (tmp_path / names[1]).unlink()
    with pytest.raises(CheckpointError, match=f"2 of the 3 parts .* number {first + 1} is missing: fetch all parts"):
        CheckpointFile(tmp_path)


@pytest.mark.parametrize("start", ["consolidated.", "mp_rank_", "zero_pp_rank_"])
def test_slices_of_one_model_are_no_models(tmp_path, start):
    st.save(tmp_path / f"{start}00.safetensors", mixed())
    assert len(CheckpointFile(tmp_path / f"{start}00.safetensors")) == len(mixed())
    st.save(tmp_path / f"{start}01.safetensors", mixed())
    with pytest.raises(CheckpointError, match=f"{start}00.safetensors is only a part, one of 2 slices of one model"):
        CheckpointFile(tmp_path / f"{start}00.safetensors")


def test_files_of_two_formats(tmp_path):
    index = shards(tmp_path, mixed())
    torch.save({"a": torch.ones(1)}, tmp_path / "model-00002-of-00002.safetensors")
    for opened in (CheckpointFile, lambda path: convert(path, tmp_path / "o.safetensors", kind="state_dict")):
        with pytest.raises(CheckpointError, match="is of files of two formats, model-00002-of-00002.safeten"):
            opened(index)


def test_a_shard_that_an_index_names_is_a_part(tmp_path):
    index = shards(tmp_path, mixed())
    (tmp_path / "model-00001-of-00002.safetensors").rename(tmp_path / "first.safetensors")
    index.write_text(index.read_text().replace("model-00001-of-00002", "first"))
    with pytest.raises(CheckpointError, match="first.safetensors is only a part, one of the 2 files of model.safe"):
        CheckpointFile(tmp_path / "first.safetensors")
    st.save(tmp_path / "other.safetensors", mixed())
    assert len(CheckpointFile(tmp_path / "other.safetensors")) == len(mixed())
    assert len(CheckpointFile(tmp_path)) == len(mixed())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "is JSON text, not weights"),
        ("{", "needs a 'weight_map'"),
        ('\ufeff{"weight_map": {}}', "its 'weight_map' is empty"),
        ("version https://git-lfs.github.com/spec/v1\n", "pointer of git-lfs, .* lfs pull --include model"),
        ("", "index.json is empty: fetch it again"),
        ('{"weight_map": {}}', "its 'weight_map' is empty"),
        ('{"weight_map": {"a": 3}}', "needs a 'weight_map'"),
        ('{"weight_map": {"a": "../a.safetensors"}}', "not a file beside it"),
        ('{"weight_map": {"a": "/a.safetensors"}}', "not a file beside it"),
        ('{"weight_map": {"a": "x.safetensors", "a": "y.safetensors"}}', "names 'a' twice"),
        ('{"weight_map": {"a": "x.safetensors", "b": "y.safetensors"}}', "x.safetensors, .* nor are 1 more: fetch all"),
    ],
)
def test_an_index_that_is_none(tmp_path, text, message):
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        CheckpointFile(tmp_path)


@pytest.mark.parametrize("name", ["diffusion_pytorch_model.safetensors", "open_clip_model.safetensors"])
def test_the_only_file_of_a_folder_is_taken_whatever_its_name(tmp_path, name):
    st.save(tmp_path / name, mixed())
    (tmp_path / "config.json").write_text("{}")
    torch.save({"lr": 1}, tmp_path / "training_args.bin")
    torch.save({"state": {}}, tmp_path / "optimizer.pt")
    assert CheckpointFile(tmp_path).path.name == name
    st.save(tmp_path / "second.safetensors", mixed())
    with pytest.raises(CheckpointError, match=f"holds several checkpoints, {name}, second.safetensors: name one"):
        CheckpointFile(tmp_path)


def test_folders_with_nothing_to_take_say_what_they_hold(tmp_path):
    (tmp_path / "unet").mkdir()
    st.save(tmp_path / "unet" / "diffusion_pytorch_model.safetensors", mixed())
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(CheckpointError, match="it holds model_index.json; there are checkpoints in its folders unet"):
        CheckpointFile(tmp_path)
    hub = tmp_path / "models--a--b" / "snapshots" / "abc"
    hub.mkdir(parents=True)
    with pytest.raises(CheckpointError, match="in its folders snapshots/abc: name the file"):
        CheckpointFile(hub.parents[1])
    (hub / ".cache").mkdir()
    (hub / ".cache" / "x.incomplete").write_bytes(b"")
    with pytest.raises(CheckpointError, match="holds no files; the download of x.incomplete is unfinished"):
        CheckpointFile(hub)
    st.save(hub / "adapter_model.safetensors", mixed())
    with pytest.raises(CheckpointError, match="holds an adapter .*not a model: merge it into its base first"):
        CheckpointFile(hub)


def test_links_and_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    st.save(tmp_path / "blob", mixed())
    (tmp_path / "m.safetensors").symlink_to("blob")
    assert len(CheckpointFile("~/m.safetensors")) == len(mixed())
    (tmp_path / "blob").unlink()
    with pytest.raises(CheckpointError, match="m.safetensors is a link to blob, where there is no file: fetch it"):
        CheckpointFile("~/m.safetensors")


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


@pytest.mark.parametrize("size", [4, 1 << 19])
def test_a_file_that_changes_while_it_is_read_is_noticed(tmp_path, size):
    """Small tensors are read, large ones are mapped."""
    path = tmp_path / "a.safetensors"
    st.save(path, {"a": torch.zeros(size), "b": torch.zeros(3)})
    file = CheckpointFile(path)
    st.save(path, {"b": torch.ones(3), "a": torch.zeros(size + 1)})
    with pytest.raises(CheckpointError, match="a.safetensors was changed while it was read"):
        file["a"]


def test_large_tensors_and_odd_places(tmp_path):
    """Mapped where numbers may begin there, read else; what is written into one does not reach the file."""
    large = torch.arange(1 << 19, dtype=torch.float32)
    for header in (b" ", b"  ", b"   "):
        text = b'{"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"F32","shape":[%d],' % len(large)
        text += b'"data_offsets":[1,%d]}}' % (1 + large.nbytes) + header
        data = len(text).to_bytes(8, "little") + text + b"\x07" + large.numpy().tobytes()
        (tmp_path / "a.safetensors").write_bytes(data)
        file = CheckpointFile(tmp_path / "a.safetensors")
        first = file["a"]
        assert torch.equal(first, large) and file["b"].tolist() == [7]
        first.zero_()
        assert torch.equal(file["a"], large)


def test_headers_are_parsed_once(tmp_path, monkeypatch):
    state = {f"t{n}": torch.full((4,), float(n)) for n in range(50)}
    st.save(tmp_path / "a.safetensors", state)
    parsed = []
    monkeypatch.setattr(checkpoint, "read_header", lambda file, read=read_header: parsed.append(1) or read(file))
    opened = []
    monkeypatch.setattr(os, "open", lambda *given, open=os.open: opened.append(1) or open(*given))
    file = CheckpointFile(tmp_path / "a.safetensors")
    for _ in range(3):
        assert_equal(dict(sorted(file.items())), dict(sorted(state.items())))
    assert len(parsed) == len(opened) == 1


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
