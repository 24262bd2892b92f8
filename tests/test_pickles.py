"""Files of torch.save, read as what they hold: against genuine pickles, torch itself, and with damage of all kinds."""

from __future__ import annotations

import io
import random
import re
import zipfile
from pathlib import Path

import pytest
import torch
from clips import GENUINE, ClassificationHead, ImageEncoder, clip, pickled
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from strategies import assert_equal
from torch.func import functional_call

from adamerging_lib.checkpoints import load_encoder, load_head
from adamerging_lib.checkpoints.inert import Record, Stored
from adamerging_lib.checkpoints.modules import open_module
from adamerging_lib.checkpoints.pickles import PickledFile, StoredTensors
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
