"""Files of torch.save, read as what they hold: against genuine pickles, torch itself, and with damage of all kinds."""

from __future__ import annotations

import argparse
import collections
import dataclasses
import datetime
import enum
import io
import random
import re
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from clips import GENUINE, ClassificationHead, ImageEncoder, clip, pickled
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from strategies import assert_equal
from torch.func import functional_call

from adamerging_lib.checkpoints import convert, load_encoder, load_head
from adamerging_lib.checkpoints.inert import Record, Stored
from adamerging_lib.checkpoints.modules import open_module
from adamerging_lib.checkpoints.pickles import PickledFile, StoredTensors
from adamerging_lib.checkpoints.weights import find_weights
from adamerging_lib.state import CheckpointError

HERE = Path(__file__).parent / "genuine"
FORMATS = pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])


def unpacked(file: PickledFile, value):
    """What was saved, with every tensor read."""
    if isinstance(value, Stored):
        return file.tensor(value)
    if isinstance(value, dict):
        return {key: unpacked(file, v) for key, v in value.items()}
    return type(value)(unpacked(file, v) for v in value) if isinstance(value, (list, tuple)) else value


def same(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@pytest.mark.parametrize("release", GENUINE)
def test_image_encoders_pickled_by_the_published_releases_of_open_clip(release):
    expected = load_file(HERE / f"expected_{release}.safetensors")
    file = PickledFile(HERE / f"encoder_{release}.pt")
    assert str(file.content.name) == "src.modeling.ImageEncoder"
    tensors, modules = open_module(file.content, "")
    state = dict(StoredTensors(file, tensors))
    assert len(state) == 38 and modules["model.visual"].name.name in ("VisualTransformer", "VisionTransformer")
    assert_equal(dict(sorted(state.items())), {k: t for k, t in sorted(expected.items()) if k.startswith("model.")})
    encoder = clip().visual
    with torch.no_grad():
        found = functional_call(encoder, load_encoder(HERE / f"encoder_{release}.pt", encoder), (expected["images"],))
    assert (found - expected["features"]).abs().max() < 1e-5
    assert torch.equal(load_head(HERE / f"head_{release}.pt"), expected["head"])


@FORMATS
@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
def test_whole_modules_give_their_state_dict(monkeypatch, tmp_path, legacy):
    encoder = ImageEncoder(clip())
    file = PickledFile(pickled(monkeypatch, tmp_path / "e.pt", encoder, legacy=legacy))
    tensors, modules = open_module(file.content, "")
    assert_equal(dict(StoredTensors(file, tensors)), dict(encoder.state_dict()))
    assert modules["model.visual.transformer.resblocks.1.mlp.gelu"].name.name == "QuickGELU"
    assert file.content.attributes["cache_dir"] is None
    resize = file.content.attributes["val_preprocess"].attributes["transforms"][0]
    assert str(resize.attributes["interpolation"].name).endswith("InterpolationMode")
    assert resize.attributes["interpolation"].given == ("bicubic",)
    state = load_encoder(tmp_path / "e.pt", encoder.model.visual)
    assert_equal(state, dict(encoder.model.visual.state_dict()))
    head = ClassificationHead(torch.randn(5, 6))
    assert torch.equal(load_head(pickled(monkeypatch, tmp_path / "h.pt", head, legacy=legacy)), head.weight)


def test_buffers_that_are_not_saved_are_not_read(tmp_path):
    module = torch.nn.BatchNorm1d(3)
    module.register_buffer("mask", torch.ones(2), persistent=False)
    module.register_parameter("none", None)
    torch.save(module, tmp_path / "m.pt")
    file = PickledFile(tmp_path / "m.pt")
    tensors, _ = open_module(file.content, "")
    assert_equal(dict(StoredTensors(file, tensors)), dict(module.state_dict()))
    assert file.tensor(tensors["num_batches_tracked"]).dtype == torch.int64


DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16]
DTYPES += [torch.int8, torch.uint8, torch.bool]
shared = torch.arange(12.0)


@st.composite
def tensors(draw):
    shape = draw(st.lists(st.integers(0, 4), max_size=3))
    t = torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 99))))
    t = t.to(draw(st.sampled_from(DTYPES)))
    change = draw(st.sampled_from(["none", "transposed", "part", "shared"]))
    if change == "transposed" and t.ndim > 1:
        return t.transpose(0, 1)
    if change == "part" and t.ndim and len(t) > 1:
        return t[1:]
    return shared.view(3, 4)[:, 1:3] if change == "shared" else t


keys = st.text(max_size=300) | st.integers(-(2**40), 2**40)
contents = st.recursive(
    tensors() | st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(keys, inner, max_size=5)
    | st.tuples(inner) | st.tuples(inner, inner) | st.tuples(inner, inner, inner, inner),
    max_leaves=12,
)  # fmt: skip


@FORMATS
@settings(max_examples=30)
@given(content=contents)
def test_plain_content_is_read_as_torch_reads_it(tmp_path_factory, legacy, content):
    path = tmp_path_factory.mktemp("saved") / "content.pt"
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    file = PickledFile(path)
    found = unpacked(file, file.content)
    assert same(found, content)
    assert same(found, torch.load(path, weights_only=True))


@FORMATS
def test_long_containers_and_many_names(tmp_path, legacy):
    content = {"list": list(range(3000)), "dict": {f"key {n}": [n] for n in range(3000)}, "texts": ["same"] * 2000}
    torch.save(content, tmp_path / "c.pt", _use_new_zipfile_serialization=not legacy)
    assert PickledFile(tmp_path / "c.pt").content == content


@FORMATS
def test_a_file_cut_short_anywhere_is_refused(tmp_path, legacy):
    torch.save(clip(layers=1).state_dict(), tmp_path / "whole.pt", _use_new_zipfile_serialization=not legacy)
    whole = (tmp_path / "whole.pt").read_bytes()
    for length in [0, 1, 2, 10, *range(100, len(whole) - 1, len(whole) // 25), len(whole) - 1]:
        (tmp_path / "part.pt").write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"part\.pt .*fetch it again"):
            file = PickledFile(tmp_path / "part.pt")
            unpacked(file, file.content)


def rebuilt(path: Path, program: bytes) -> None:
    """A zip file like torch.save's with another pickle in it, and right checksums."""
    with zipfile.ZipFile(HERE / "encoder_2_0_2.pt") as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            new.writestr(name, program if name.endswith("data.pkl") else old.read(name))


def test_damaged_programs_are_read_or_refused_and_nothing_else_happens(tmp_path):
    """Bytes changed at random: whatever a program then asks for, it ends in content or in a CheckpointError."""
    with zipfile.ZipFile(HERE / "encoder_2_0_2.pt") as archive:
        program = archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))
    chance, refused = random.Random(0), 0
    for trial in range(150):
        damaged = bytearray(program)
        for _ in range(chance.choice([1, 3, 30])):
            damaged[chance.randrange(2, len(damaged))] = chance.randrange(256)
        rebuilt(tmp_path / "d.pt", bytes(damaged))
        try:
            file = PickledFile(tmp_path / "d.pt")
            if isinstance(file.content, Record):
                dict(StoredTensors(file, open_module(file.content, "")[0]))
        except CheckpointError as error:
            refused += 1
            assert "d.pt" in str(error) or "module" in str(error), f"trial {trial}: {error}"
    assert 50 < refused < 150


Pair = collections.namedtuple("Pair", "one two")


class Settings(dict):
    """A kind of dict."""


class Steps(list):
    """A kind of list."""


@dataclasses.dataclass
class Options:
    rate: float = 0.1
    path: Path = Path("/somewhere")


class Guarded:
    """Sets itself from a tuple."""

    def __getstate__(self):
        return (1, "two", b"three")

    def __setstate__(self, state):
        raise AssertionError("never called")


class Choice(enum.Enum):
    FIRST = "first"
    SECOND = 2


ODD = {
    "enumerations": [Choice.FIRST, {Choice.SECOND: 1}],
    "named tuple": Pair(1, 2),
    "stream": io.BytesIO(b"abc"),
    "a float as a key": {0.5: 1},
    "None as a key": {None: 0},
    "a tuple as a key": {(1, (2, "x")): 3},
    "bytes as a key": {b"a": 1},
    "a class as a key": {torch.nn.Linear: {"best": 1}},
    "a function as a key": {re.compile: 1},
    "an instance as a key": {Options(): 1} if Options.__hash__ else {1: 1},
    "a frozen set": frozenset({1, "a", (2, 3)}),
    "a set": {1, 2},
    "Counter": collections.Counter([3, 3]),
    "defaultdict": collections.defaultdict(list, a=[1]),
    "OrderedDict": collections.OrderedDict(a=1),
    "deque": collections.deque([1, 2], maxlen=3),
    "bytes": b"abc\xff",
    "no bytes": b"",
    "long bytes": bytes(300),
    "bytearray": bytearray(b"abc"),
    "complex": 1 + 2j,
    "a large number": 2**5000,
    "path": Path("/a/b"),
    "date": datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC),
    "NumPy scalar": np.float64(0.5),
    "NumPy bool": np.bool_(True),
    "NumPy array": np.arange(6.0).reshape(2, 3),
    "NumPy texts": np.array(["a", "b"]),
    "NumPy type": np.dtype("float32"),
    "NumPy random state": np.random.RandomState(0).get_state(),
    "generator": np.random.default_rng(0),
    "Namespace": argparse.Namespace(lr=1, path=Path("x")),
    "SimpleNamespace": types.SimpleNamespace(a=1),
    "dataclass": Options(),
    "kind of dict": Settings(a=1),
    "kind of list": Steps([1, 2]),
    "sets itself": Guarded(),
    "type": torch.float16,
    "device": torch.device("cpu"),
    "size": torch.Size([1, 2]),
    "slice": slice(1, 2),
    "range": range(3),
    "ellipsis": [..., NotImplemented],
    "tuple that holds itself": None,
}
recursive = ([],)
recursive[0].append(recursive)
ODD["tuple that holds itself"] = recursive


@pytest.mark.parametrize(("protocol", "legacy"), [(2, False), (3, False), (4, False), (5, False), (2, True), (5, True)])
def test_whatever_lies_beside_weights_they_are_read(tmp_path, protocol, legacy):
    """In one file each, as what one holds may be read only because another came before."""
    weights = {"a.weight": torch.randn(2, 3), "b": torch.arange(3), "c": torch.randn(3, 2).t()}
    for name, odd in ODD.items():
        content = {"state_dict": weights, "odd": odd}
        torch.save(content, tmp_path / "m.pt", pickle_protocol=protocol, _use_new_zipfile_serialization=not legacy)
        file = PickledFile(tmp_path / "m.pt")
        found = find_weights(file.content, name)
        assert found.entries == ("odd",) and found.key == "state_dict", name
        assert_equal(dict(StoredTensors(file, found.tensors)), weights)


@pytest.mark.parametrize("protocol", range(2, 6))
def test_content_of_every_protocol_is_what_was_saved(tmp_path, protocol):
    content = {
        "bytes": b"abc\xff", "none": b"", "set": {1, 2}, "frozen": frozenset([(1, 2)]), "float key": {0.5: None},
        "text": "ä" * 300, "tuple": (1, 2, 3, 4), "count": collections.Counter("aab"), "large": 2**3000, "x": [None],
    }  # fmt: skip
    torch.save(content, tmp_path / "m.pt", pickle_protocol=protocol)
    assert PickledFile(tmp_path / "m.pt").content == content


NEWER = [torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e8m0fnu,
         torch.complex64]  # fmt: skip


@FORMATS
@pytest.mark.parametrize("dtype", NEWER, ids=str)
def test_types_without_storages_of_their_own(tmp_path, dtype, legacy):
    tensor = torch.ones(4, 3).to(dtype)
    torch.save({"a": tensor, "b": tensor.t(), "c": tensor[1:, 1]}, tmp_path / "m.pt",
               _use_new_zipfile_serialization=not legacy)  # fmt: skip
    file = PickledFile(tmp_path / "m.pt")
    for key, expected in {"a": tensor, "b": tensor.t(), "c": tensor[1:, 1]}.items():
        found = file.tensor(file.content[key])
        assert found.dtype == dtype and found.shape == expected.shape
        assert torch.equal(found.contiguous().view(torch.uint8), expected.contiguous().view(torch.uint8))


def test_calls_of_pythons_own_classes_are_told(tmp_path):
    """Those of others with one plain value are members of enumerations; of Python's, they do harm."""
    for module, name, harmless in (
        ("somebody.settings", "Mode", True), ("__main__", "Outer.Mode", True), ("subprocess", "Popen", False),
        ("somebody.settings", "run", False), ("torch.hub", "Load", False), ("builtins", "Exit", False),
        ("pip._internal", "Main", False),
    ):  # fmt: skip
        program = f"c{module}\n{name}\nX".encode() + (5).to_bytes(4, "little") + b"first\x85R"
        with zipfile.ZipFile(tmp_path / "m.pt", "w") as archive:
            archive.writestr("m/data.pkl", b"\x80\x02" + program + b".")
        if harmless:
            found = PickledFile(tmp_path / "m.pt").content
            assert str(found.name) == f"{module}.{name}" and found.given == ("first",)
            continue
        with pytest.raises(CheckpointError, match=f"wants to call {module}.{name}: nothing of it was executed"):
            PickledFile(tmp_path / "m.pt")


@FORMATS
def test_expanded_and_overlapping_tensors(tmp_path, legacy):
    line = torch.arange(7)
    state = {
        "expanded": line.expand(2, -1), "scalar": torch.tensor(3.0).expand(4, 4), "windows": line.unfold(0, 3, 1),
        "mask": torch.full((1, 1), -float("inf")).expand(300, 300),
    }  # fmt: skip
    torch.save(state, tmp_path / "m.pt", _use_new_zipfile_serialization=not legacy)
    convert(tmp_path / "m.pt", tmp_path / "m.safetensors", kind="state_dict")
    assert_equal(dict(sorted(load_file(tmp_path / "m.safetensors").items())), dict(sorted(state.items())))
    torch.save({"bomb": torch.zeros(1).expand(2**15, 2**15)}, tmp_path / "m.pt")
    with pytest.raises(CheckpointError, match=r"holds expanded tensors, such as one of shape \(32768, 32768\)"):
        convert(tmp_path / "m.pt", tmp_path / "m.safetensors", kind="state_dict", force=True)


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (lambda: torch.eye(2).to_sparse(), r"holds a sparse tensor: save a dense tensor .* to_dense\(\)"),
        (lambda: torch.eye(2).to_sparse_csr(), "holds a sparse tensor"),
        (lambda: torch.ones(2, device="meta"), r"a tensor without its numbers \(of the device 'meta'\)"),
        (lambda: torch.ones(2, dtype=torch.complex64).conj(), r"conjugated or negated only when it is read: .*clone"),
        (lambda: torch._neg_view(torch.ones(2)), "conjugated or negated"),
        (lambda: torch.ones(2, dtype=torch.complex128), "'a' of .* holds no complex128; leave it out with --drop a"),
    ],
)
@pytest.mark.filterwarnings("ignore:Sparse")
def test_tensors_that_cannot_be_kept_are_refused_by_what_they_are(tmp_path, tensor, words):
    torch.save({"a": tensor()}, tmp_path / "m.pt")
    with pytest.raises(CheckpointError, match=words) as error:
        convert(tmp_path / "m.pt", tmp_path / "m.safetensors", kind="state_dict")
    assert "cut short" not in str(error.value)


def test_tensors_of_one_storage_have_memory_of_their_own(tmp_path):
    flat = torch.arange(12.0)
    torch.save({"a": flat[:5], "b": flat[3:].view(3, 3), "all": flat}, tmp_path / "m.pt")
    file = PickledFile(tmp_path / "m.pt")
    tensors = StoredTensors(file, file.content)
    read = dict(tensors)
    for key, expected in {"a": flat[:5], "b": flat[3:].view(3, 3), "all": flat}.items():
        assert torch.equal(read[key], expected) and tensors.layout[key].shape == expected.shape
    for key in read:
        read[key].zero_()
        assert torch.equal(tensors["b"], flat[3:].view(3, 3))


def test_two_files_of_one_name_in_an_archive(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "m.pt")
    with zipfile.ZipFile(tmp_path / "m.pt", "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("m/data.pkl", b"\x80\x02}.")
    with pytest.raises(CheckpointError, match="its archive holds two files of one name"):
        PickledFile(tmp_path / "m.pt")


def test_damaged_numbers_are_noticed(tmp_path):
    data = bytearray((HERE / "encoder_2_0_2.pt").read_bytes())
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        place = data.index(archive.read("encoder_2_0_2/data/7"))
    data[place] ^= 1
    (tmp_path / "e.pt").write_bytes(data)
    with pytest.raises(CheckpointError, match="Bad CRC-32"):
        load_encoder(tmp_path / "e.pt", clip().visual)


def test_other_files_are_told_apart(tmp_path):
    path = tmp_path / "f.pt"
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*f\.pt"):
        PickledFile(path)
    path.write_text("<html>Quota exceeded</html>")
    with pytest.raises(CheckpointError, match=r"f\.pt is not a readable file of torch\.save"):
        PickledFile(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no model")
    with pytest.raises(CheckpointError, match=re.escape("(KeyError: 'data.pkl')")):
        PickledFile(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/byteorder", "big")
        archive.writestr("m/data.pkl", b"\x80\x02}.")
    with pytest.raises(CheckpointError, match="big-endian"):
        PickledFile(path)
