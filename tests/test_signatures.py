"""Files that are not safetensors: each is named for what it is, whatever it is called, with what mends it."""

from __future__ import annotations

import gzip
import io
import pickle
import shlex
import tarfile
import zipfile

import numpy as np
import pytest
import torch

from adamerging_lib import cli
from adamerging_lib import state as st
from adamerging_lib.checkpoints import convert
from adamerging_lib.files.checkpoint import CheckpointFile
from adamerging_lib.files.signatures import foreign, is_pickled
from adamerging_lib.state import CheckpointError

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


def npz():
    data = io.BytesIO()
    np.savez(data, a=np.ones(2))
    return data.getvalue()


def npy():
    data = io.BytesIO()
    np.save(data, np.ones(2))
    return data.getvalue()


def zipped(*names):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return data.getvalue()


def tarred():
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.bin"))
    return data.getvalue()


FOREIGN = {
    "git-lfs": (LFS, "pointer of git-lfs, not the file itself: git -C .* lfs pull --include"),
    "git-annex": (b"/annex/objects/SHA256E-s1--ab.bin\n", "pointer of git-annex.*annex get"),
    "gguf": (b"GGUF\x03\x00\x00\x00" + bytes(40), r"llama.cpp \(GGUF\).*cannot be merged: take"),
    "html": (b"\n<!DOCTYPE html>\n<html><body>Log in</body></html>", "is a web page, such as one that asks to log in"),
    "error": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "is a web page"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(40), r"Keras or TensorFlow \(HDF5\): take"),
    "onnx": (b"\x08\x07\x12\x07pytorch\x1a\x052.1.0" + bytes(9), "is a model of ONNX: take"),
    "tflite": (b"\x1c\x00\x00\x00TFL3" + bytes(30), "TensorFlow Lite"),
    "npz": (npz(), r"NumPy arrays \(npz\).*save_file"),
    "npy": (npy(), "is an array of NumPy"),
    "gzip": (gzip.compress(b"x" * 100), "is packed by gzip: gzip -dk"),
    "tar": (tarred(), "is an archive of tar: tar -xf"),
    "zip": (zipped("readme.txt", "model.bin"), "is a zip archive of other files, such as 'readme.txt': unzip"),
    "keras": (zipped("config.json", "model.weights.h5"), "is a model of Keras"),
    "json": (b'{"error": "Repository not found"}', "is JSON text, not weights"),
    "list": (b"[1, 2]", "is JSON text"),
    "text": (b"Entry not found", "is text that begins 'Entry not found', not weights: fetch it again"),
    "umlauts": ("Zugriff verweigert: geprüft".encode(), "is text that begins 'Zugriff"),
    "zeros": (bytes(2000), "begins with zeros only, as a download does"),
    "random": (bytes(range(1, 200)), "is not a readable|cut short"),
    "empty": (b"", "is empty: fetch it again"),
}  # fmt: skip


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("file", ["m.safetensors", "pytorch_model.bin", "my model.pt"])
def test_files_are_named_for_what_they_are(tmp_path, capsys, name, file):
    data, words = FOREIGN[name]
    path = tmp_path / file
    path.write_bytes(data)
    for opened in (CheckpointFile, lambda path: convert(path, tmp_path / "out.safetensors", kind="state_dict")):
        with pytest.raises(CheckpointError, match=words) as error:
            opened(path)
        assert str(path) in str(error.value) and "Traceback" not in str(error.value)
    assert cli.main(["inspect", str(path)]) == 2
    assert "cut short" not in capsys.readouterr().err or name == "random"
    if file.endswith("safetensors"):
        with pytest.raises(CheckpointError, match=words):
            st.load(path)
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("flax_model.msgpack", r"Flax \(JAX\)"),
        ("model.ckpt.data-00000-of-00001", "TensorFlow"),
        ("model.ckpt.index", "TensorFlow"),
        ("saved_model.pb", "TensorFlow"),
        ("model.engine", "TensorRT"),
    ],
)
def test_files_without_first_bytes_of_their_own_go_by_their_names(tmp_path, name, words):
    (tmp_path / name).write_bytes(b"\x84\xa4bert\x81\xa3" + bytes(range(200)))
    with pytest.raises(CheckpointError, match=f"{name} is a .*{words}.*: take the model's release in safetensors"):
        CheckpointFile(tmp_path / name)


def test_a_command_that_mends_is_one_for_the_shell(tmp_path):
    path = tmp_path / "my folder" / "m.safetensors"
    path.parent.mkdir()
    path.write_bytes(LFS)
    command = foreign(path).partition(": ")[2]
    assert shlex.split(command) == ["git", "-C", str(path.parent), "lfs", "pull", "--include", "m.safetensors"]


@pytest.mark.parametrize("end", [".incomplete", ".part", ".crdownload", ".aria2"])
def test_unfinished_downloads(tmp_path, end):
    whole = tmp_path / "m.safetensors"
    st.save(whole, {"a": torch.ones(2)})
    whole.rename(tmp_path / f"m.safetensors{end}")
    with pytest.raises(CheckpointError, match=f"m.safetensors{end} is an unfinished download"):
        CheckpointFile(tmp_path / f"m.safetensors{end}")
    with pytest.raises(CheckpointError, match=f"no checkpoint at .*, but the unfinished download m.safetensors{end}"):
        CheckpointFile(whole)


def test_a_file_that_aria2_is_still_at_work_on(tmp_path):
    st.save(tmp_path / "m.safetensors", {"a": torch.zeros(2)})
    (tmp_path / "m.safetensors.aria2").write_bytes(b"\x00\x01")
    with pytest.raises(CheckpointError, match=r"unfinished download of aria2, as m\.safetensors\.aria2 beside it"):
        CheckpointFile(tmp_path / "m.safetensors")


@pytest.mark.parametrize("name", ["m.safetensors", "model_best.pth.tar", "weights", "m.pt"])
@pytest.mark.parametrize("legacy", [False, True])
def test_files_of_torch_save_of_any_name_are_sent_to_convert(tmp_path, name, legacy):
    path, state = tmp_path / name, {"a": torch.randn(3)}
    torch.save(state, path, _use_new_zipfile_serialization=not legacy)
    assert is_pickled(path) and foreign(path) is None
    with pytest.raises(CheckpointError, match="is a pickle, and reading one can run code") as error:
        CheckpointFile(path)
    program, *arguments = shlex.split(str(error.value).splitlines()[1])
    assert program == "adamerging" and cli.main(arguments) == 0
    assert torch.equal(CheckpointFile(arguments[-1])["a"], state["a"])


@pytest.mark.parametrize("name", ["m.pt", "m.bin", "m"])
def test_a_safetensors_file_of_any_name_is_read(tmp_path, name):
    st.save(tmp_path / name, {"a": torch.ones(2)})
    assert torch.equal(CheckpointFile(tmp_path / name)["a"], torch.ones(2))
    assert convert(tmp_path / name, tmp_path / "out.safetensors", kind="state_dict").tensors == 1


@pytest.mark.parametrize("protocol", range(2, 6))
def test_another_pickle_is_told_as_one(tmp_path, protocol):
    (tmp_path / "m.pkl").write_bytes(pickle.dumps({"a": np.ones(2), "b": 3}, protocol))
    with pytest.raises(CheckpointError, match=r"is a pickle, but none of torch\.save: it holds a dict"):
        convert(tmp_path / "m.pkl", tmp_path / "out.safetensors")


def test_headers_of_every_length_are_no_pickles(tmp_path):
    """The first bytes of a file are the length of its header, and may look like anything."""
    for count in range(0, 700, 7):
        st.save(tmp_path / "m.safetensors", {"a": torch.zeros(1)}, {"note": "x" * count})
        assert not is_pickled(tmp_path / "m.safetensors") and foreign(tmp_path / "m.safetensors") is None
        assert len(CheckpointFile(tmp_path / "m.safetensors")) == 1
