"""What a file is, by its first bytes: names of files are often wrong, and what to do about it differs."""

from __future__ import annotations

import re
import shlex
import zipfile
from collections.abc import Callable
from pathlib import Path

_FIRST = 1024  # bytes that are looked at
_UNFINISHED = (".incomplete", ".part", ".partial", ".crdownload", ".download", ".aria2", ".tmp")
_FETCH = "fetch it again"
_RELEASE = "take the model's release in safetensors or for PyTorch"

Test = Callable[[bytes], bool]


def _starts(*starts: bytes) -> Test:
    return lambda first: first.startswith(starts)


def _web(first: bytes) -> bool:
    return bool(re.match(rb"(?i)(\xef\xbb\xbf)?\s*(<!doctype\s|<html|<head|<body|<\?xml|<error)", first))


def _onnx(first: bytes) -> bool:
    # A protobuf: the number of its version, then the name of the program that wrote it, or another text or the graph.
    return len(first) > 2 and first[0] == 0x08 and 1 <= first[1] < 32 and first[2] in (0x12, 0x1A, 0x22, 0x3A)


def _json(first: bytes) -> bool:
    return bool(re.match(rb"(\xef\xbb\xbf)?\s*[{\[]\s*[\"{\[\]}\d]", first))


def _text(first: bytes) -> bool:
    try:
        text = first.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(first) - 3 or not error.start:  # else the end cuts a letter in two
            return False
        text = first[: error.start].decode("utf-8")
    return all(letter.isprintable() or letter.isspace() for letter in text)


# In the order in which they are asked: what it is, and what mends it; {name} and {folder} are the file's, for a shell.
_KINDS: tuple[tuple[Test, str, str], ...] = (
    (_starts(b"version https://git-lfs"), "is a pointer of git-lfs, not the file itself",
     "git -C {folder} lfs pull --include {name}"),
    (lambda first: b"/annex/objects/" in first[:300], "is a pointer of git-annex, not the file itself",
     "git -C {folder} annex get {name}"),
    (_starts(b"# xet version"), "is a pointer of Xet, not the file itself", "git -C {folder} xet checkout"),
    (_starts(b"GGUF", b"lmgg", b"tjgg", b"fmgg", b"algg"),
     "is a file of llama.cpp (GGUF), mostly of quantised numbers, which cannot be merged", _RELEASE),
    (_starts(b"\x89HDF\r\n\x1a\n"), "is a file of Keras or TensorFlow (HDF5)", _RELEASE),
    (lambda first: first[4:8] == b"TFL3", "is a model of TensorFlow Lite", _RELEASE),
    (_onnx, "is a model of ONNX", _RELEASE),
    (_starts(b"\x93NUMPY"), "is an array of NumPy", "name it and save it, as safetensors.numpy.save_file does"),
    (_starts(b"\x1f\x8b"), "is packed by gzip", "gzip -dk {path}, or tar -xzf {path} where it ends in .tar.gz or .tgz"),
    (_starts(b"BZh"), "is packed by bzip2", "bzip2 -dk {path}, or tar -xjf {path} where it ends in .tar.bz2"),
    (_starts(b"\xfd7zXZ\x00"), "is packed by xz", "xz -dk {path}, or tar -xJf {path} where it ends in .tar.xz"),
    (_starts(b"\x28\xb5\x2f\xfd"), "is packed by zstd", "zstd -d {path}"),
    (_starts(b"7z\xbc\xaf'\x1c"), "is an archive of 7-Zip", "7z x {path}, and name the file in it"),
    (_starts(b"Rar!\x1a\x07"), "is an archive of RAR", "unrar x {path}, and name the file in it"),
    (lambda first: first[257:262] == b"ustar", "is an archive of tar", "tar -xf {path}, and name the file in it"),
    (_web, "is a web page, such as one that asks to log in or tells of an error",
     "open it in a browser to see what it says, and " + _FETCH),
    (_json, "is JSON text, not weights", "name the file of the weights, or " + _FETCH),
    (lambda first: not any(first), "begins with zeros only, as a download does that reserved its room", _FETCH),
)  # fmt: skip


# What has no first bytes of its own.
_NAMED: tuple[tuple[str, str], ...] = (
    (r".*\.msgpack", "is a file of Flax (JAX)"),
    (r".*\.(data-\d+-of-\d+|index|meta|h5|pb|keras)", "is a file of TensorFlow or Keras"),
    (r".*\.(onnx|ort)", "is a model of ONNX"),
    (r".*\.(gguf|ggml)", "is a file of llama.cpp"),
    (r".*\.(mlmodel|mlpackage)", "is a model of Core ML"),
    (r".*\.(engine|plan|trt)", "is a model of TensorRT"),
)


def foreign(path: Path) -> str | None:
    """What a file is that is neither a safetensors file nor one of torch.save, with the mend; None where it may be one.

    Arguments:
        path: the file.

    Returns:
        Words to follow its name.
    """
    if (name := path.name).lower().endswith(_UNFINISHED):
        return f"is an unfinished download: finish it, or {_FETCH}"
    if (control := path.with_name(f"{name}.aria2")).is_file():
        return f"is an unfinished download of aria2, as {control.name} beside it tells: go on with aria2c -c"
    first = _first(path)
    if not first:
        return f"is empty: {_FETCH}, or save it again"
    if _safetensors(first):
        return None
    if first.startswith(b"PK"):
        return _zip(path)
    for test, words, mend in _KINDS:
        if test(first):
            quoted = {"name": name, "path": str(path), "folder": str(path.parent)}
            return f"{words}: {mend.format_map({key: shlex.quote(value) for key, value in quoted.items()})}"
    if is_pickled(path):
        return None
    if words := next((words for names, words in _NAMED if re.fullmatch(names, name, re.I)), None):
        return f"{words}: {_RELEASE}"
    if _text(first):
        line = first.decode("utf-8", "replace").strip().splitlines()[0][:60]
        return f"is text that begins {line!r}, not weights: {_FETCH}"
    return None


def is_pickled(path: Path) -> bool:
    """Whether a file is one of torch.save, of either format, or another pickle, whatever its name is."""
    first = _first(path)
    if _safetensors(first):
        return False
    if first.startswith(b"PK"):
        names = _members(path)
        return any(name.endswith("data.pkl") for name in names) if names else b"data.pkl" in first
    # The instruction that names the protocol; programs of the oldest, which is text, begin with what they put together.
    return bool(re.match(rb"\x80[\x02-\x05]|[(](dp|lp|i)|c(collections|torch|numpy|__main__)[\w.]*\n", first))


def is_safetensors(path: Path) -> bool:
    """Whether a file begins as safetensors files do; it may be broken further on."""
    return _safetensors(_first(path))


def _safetensors(first: bytes) -> bool:
    # A header is shorter than 2^32 bytes, and JSON.
    return first[4:8] == bytes(4) and first[8:9] in (b"{", b"") and len(first) >= 8 and any(first[:4])


def _first(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(_FIRST)


def _members(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError):
        return []


def _zip(path: Path) -> str | None:
    names, quoted = _members(path), shlex.quote(str(path))
    if any(name.endswith("data.pkl") for name in names) or not names:
        return None  # of torch.save, or cut short: its reader says which
    if all(name.endswith(".npy") for name in names):
        return "is a file of NumPy arrays (npz): load it with numpy.load, and save it with safetensors.numpy.save_file"
    if any(name.endswith((".h5", ".keras")) for name in names):
        return f"is a model of Keras: {_RELEASE}"
    return f"is a zip archive of other files, such as {names[0]!r}: unzip {quoted}, and name the file in it"
