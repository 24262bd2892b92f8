"""Pickles made to do harm: none does anything, and each is refused, by the name of what it wanted."""

from __future__ import annotations

import copyreg
import functools
import os
import pickle
import subprocess
import sys
import zipfile
from collections import OrderedDict
from struct import pack

import pytest
import torch

from adamerging_lib.checkpoints import convert
from adamerging_lib.checkpoints.inert import Record
from adamerging_lib.checkpoints.modules import open_module
from adamerging_lib.checkpoints.pickles import PickledFile
from adamerging_lib.state import CheckpointError

STATE = {"weight": torch.ones(2)}
FORMATS = pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])


class Call:
    """Pickles as a call, with all that ``__reduce__`` may give."""

    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced

    __call__ = None


def evil(canary):
    """An argument that does harm when it is read."""
    return Call(eval, (f"open({str(canary)!r}, 'w').close()",))


# What to save, and what the refusal names.
CALLS = {
    "os.system": (lambda canary: Call(os.system, (f"touch {canary}",)), r"(posix|nt)\.system"),
    "eval": (evil, r"builtins\.eval"),
    "exec": (lambda canary: Call(exec, (f"open({str(canary)!r}, 'w')",)), r"builtins\.exec"),
    "open": (lambda canary: Call(open, (str(canary), "w")), r"_?io\.open"),
    "subprocess": (lambda canary: Call(subprocess.check_call, (["touch", str(canary)],)), r"subprocess\.check_call"),
    "partial": (lambda canary: Call(functools.partial(os.system, f"touch {canary}"), ()), r"functools\.partial"),
    "in a parameter": (lambda canary: Call(torch._utils._rebuild_parameter, (evil(canary), False)), r"builtins\.eval"),
    "in a mapping": (lambda canary: Call(OrderedDict, ([("a", evil(canary))],)), r"builtins\.eval"),
    "in a state": (lambda canary: Call(OrderedDict, (), {"a": evil(canary)}), r"builtins\.eval"),
    "in items": (lambda canary: Call(OrderedDict, (), None, None, iter([("a", evil(canary))])), r"builtins\.eval"),
}  # fmt: skip


def saved(path, content, legacy=False):
    """Beside weights, as an attacker would, so that the model works."""
    torch.save({**STATE, "extra": content}, path, _use_new_zipfile_serialization=not legacy)
    return path


@FORMATS
@pytest.mark.parametrize("suffix", ["pt", "bin"])
@pytest.mark.parametrize("call", CALLS)
def test_no_call_is_made(tmp_path, call, suffix, legacy):
    make, name = CALLS[call]
    canary, out = tmp_path / "canary", tmp_path / "out.safetensors"
    path = saved(tmp_path / f"model.{suffix}", make(canary), legacy)
    for kind in ("auto", "state_dict", "head", "hf"):
        with pytest.raises(CheckpointError, match=rf"model\.{suffix} wants to call {name}: nothing of it was executed"):
            convert(path, out, kind=kind)
    assert not canary.exists() and not out.exists()


class Setter:
    """Does harm when its state is set."""

    def __init__(self, canary):
        self.canary = str(canary)

    def __setstate__(self, state):
        open(state["canary"], "w").close()


class Maker:
    """Does harm when it is made."""

    def __new__(cls, canary):
        open(canary, "w").close()
        return object.__new__(cls)

    def __reduce_ex__(self, protocol):
        return copyreg.__newobj__, (Maker, self.canary), {}


def made(canary):
    instance = object.__new__(Maker)
    instance.canary = str(canary)
    return instance


@FORMATS
@pytest.mark.parametrize("make", [Setter, made])
def test_instances_stay_records(tmp_path, make, legacy):
    canary = tmp_path / "canary"
    path = saved(tmp_path / "model.pt", make(canary), legacy)
    extra = PickledFile(path).content["extra"]
    assert isinstance(extra, Record) and extra.name.name in ("Setter", "Maker")
    assert convert(path, tmp_path / "out.safetensors", kind="state_dict").dropped == ("extra",)
    assert not canary.exists()


@pytest.mark.parametrize("make", [*(CALLS[call][0] for call in ("os.system", "eval", "in items")), Setter, made])
def test_the_payloads_are_live(tmp_path, make):
    """Read in the usual way, they do their harm: the tests above test something."""
    path = saved(tmp_path / "model.pt", make(tmp_path / "canary"))
    torch.load(path, weights_only=False)
    assert (tmp_path / "canary").exists()


def test_nothing_is_imported(tmp_path, monkeypatch):
    (tmp_path / "trap.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w').close()\nclass Net: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    import trap

    path = saved(tmp_path / "model.pt", trap.Net())
    (tmp_path / "canary").unlink()
    monkeypatch.delitem(sys.modules, "trap")
    assert str(PickledFile(path).content["extra"].name) == "trap.Net"
    assert not (tmp_path / "canary").exists()


# Programs that no honest library writes, byte by byte.
def text(value):
    return b"X" + pack("<I", len(value)) + value.encode()


def integer(value):
    return b"J" + pack("<i", value)


SYSTEM, TOUCH = b"cposix\nsystem\n", text("touch canary")
EMPTY = b"ccollections\nOrderedDict\n)R"


def written(path, program):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", b"\x80\x02" + program + b".")
    return path


def storage(count, kind="Float", key="7"):
    kind = f"ctorch\n{kind}Storage\n".encode()
    return b"(" + text("storage") + kind + text(key) + text("cpu") + integer(count) + b"tQ"


def tensor(count, offset, shape, stride):
    shape, stride = (b"(" + b"".join(map(integer, v)) + b"t" for v in (shape, stride))
    given = storage(count) + integer(offset) + shape + stride + b"\x89" + EMPTY
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + given + b"tR"


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (b"(" + TOUCH + b"iposix\nsystem\n", "uses the pickle instruction INST"),
        (b"(" + SYSTEM + TOUCH + b"o", "uses the pickle instruction OBJ"),
        (b"\x82\x01", "uses the pickle instruction EXT1"),
        (b"2" + SYSTEM, "uses the pickle instruction DUP"),
        (b"\x97", "uses the pickle instruction NEXT_BUFFER"),
        (pickle.dumps(Call(os.system, ("touch canary",)), 4)[2:-1], "wants to call posix.system"),
        (pickle.dumps(Call(os.system, ("touch canary",)), 5)[2:-1], "wants to call posix.system"),
        (text("posix") + text("system") + b"\x93" + TOUCH + b"\x85R", "wants to call posix.system"),
        (text("posix") + SYSTEM + b"\x93", "a Name where a str belongs"),
        (SYSTEM + TOUCH + b"\x85}\x92" + TOUCH + b"\x85R", "wants to call something that it made itself"),
        (b"cbuiltins\ngetattr\n" + SYSTEM + TOUCH + b"\x86R", "wants to call builtins.getattr"),
        (b"ctorch._tensor\n_rebuild_from_type_v2\n(" + SYSTEM + SYSTEM + TOUCH + b"\x85}tR", "call posix.system"),
        (b"\x8d" + pack("<Q", 2**62), "EOFError: 4611686018427387904 bytes in a file of"),
        (b"\x96" + pack("<Q", 2**40), "EOFError: 1099511627776 bytes in a file of"),
        (EMPTY + TOUCH + b"\x85R", "wants to call something that it made itself"),
        (SYSTEM + b")\x81" + TOUCH + b"\x85R", "wants to call something that it made itself"),
        (SYSTEM + TOUCH + b"R", "wants to call posix.system"),
        (b"cos.path\njoin\n)R", r"wants to call os\.path\.join"),
        (SYSTEM + b"}b", "a Name where a Record belongs"),
        (SYSTEM + b"}" + TOUCH + b"a", "a dict where a list belongs"),
        (SYSTEM + b"(" + TOUCH + b"\x90", "a Name where a set belongs"),
        (text("os") + b"Q", "a str where a tuple belongs"),
        (text("file") + TOUCH + b"\x86Q", "a reference to something that is not a storage"),
        (storage(2**30), "storage 7 of 1073741824 numbers in a file of"),
        (storage(-1), "storage 7 of -1 numbers"),
        (storage(1, "QInt8"), r"holds numbers of torch\.QInt8Storage"),
        (tensor(4, 0, (2, 3), (3, 1)), "beyond its storage of 4 numbers"),
        (tensor(4, -1, (2,), (1,)), "beyond its storage"),
        (tensor(4, 0, (2,), (-1,)), "beyond its storage"),
        (tensor(4, 2, (2, 2), (1, 1)), "beyond its storage"),
        (tensor(4, 0, (2**30, 2**30), (0, 0)), "holds expanded tensors, such as one of .* in a storage of 4 numbers"),
        (tensor(4, 0, (2**20, 64), (0, 0)) + tensor(4, 0, (2**20, 64), (0, 0)), "holds expanded tensors"),
        (tensor(4, 0, (1,) * 65, (1,) * 65), "a tensor of 65 dimensions"),
        (b"}])s", "has a list as a key"),
        (b"}}\x85)s", "has a dict as a key"),
        (b"R", "IndexError"),
        (b"", "IndexError"),
        (b"h\x05", "KeyError"),
        (b"\xff", "byte ff is not a pickle instruction"),
        (b"c\xff\xfe\nx\n", "UnicodeDecodeError"),
    ],
)  # fmt: skip
def test_programs(tmp_path, monkeypatch, program, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        PickledFile(written(tmp_path / "model.pt", program))
    assert os.listdir() == ["model.pt"]


def test_a_huge_memo_number_costs_nothing(tmp_path):
    program = b"}r" + pack("<I", 2**32 - 1) + b"j" + pack("<I", 2**32 - 1)
    assert PickledFile(written(tmp_path / "model.pt", program)).content == {}


def test_tuples_within_tuples_cannot_stop_the_clock(tmp_path):
    bomb = b")" + b"q\x00h\x00\x86" * 100  # the hash of the outermost takes 2^100 steps
    pairs = EMPTY[:-2] + b"]" + bomb + b")\x86a\x85R"
    for program in (b"}" + bomb + b")s", b"cbuiltins\nset\n]" + bomb + b"a\x85R", pairs):
        with pytest.raises(CheckpointError, match="has a tuple of more than 1000 parts as a key"):
            PickledFile(written(tmp_path / "model.pt", program))


def test_attributes_of_a_record_are_only_data(tmp_path):
    attributes = b"}(" + b"".join(text(name) + SYSTEM for name in ("__setstate__", "__class__", "__reduce__")) + b"u"
    program = b"cm\nNet\n)\x81" + attributes + b"b" + attributes + b"b"
    record = PickledFile(written(tmp_path / "model.pt", program)).content
    assert type(record) is Record and len(record.attributes) == 3
    assert str(record.attributes["__setstate__"]) == "posix.system"


def module(**children):
    return Record(("m", "Net"), {"_parameters": {}, "_buffers": {}, "_modules": children})


def test_modules_without_end_are_refused():
    itself = module()
    itself.attributes["_modules"]["again"] = itself
    wide = module()
    for _ in range(60):
        wide = module(left=wide, right=wide)
    for endless in (itself, wide, module(**{"x" * 2000: module()})):
        with pytest.raises(CheckpointError, match="e.pt is not a readable module: .* without end"):
            open_module(endless, "e.pt")
    for broken in (Record(("m", "Net")), module(child=3), module(child=Record(("m", "Net"), {"_modules": {}}))):
        with pytest.raises(CheckpointError, match="e.pt is not a readable module: it holds"):
            open_module(broken, "e.pt")


def test_a_bomb_is_not_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "model.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/data.pkl", bytes(10**6))
    with pytest.raises(CheckpointError, match="data.pkl is compressed, which torch.save never does"):
        PickledFile(tmp_path / "model.pt")


def test_a_torchscript_program_is_not_run(tmp_path):
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
        for name in ("data.pkl", "constants.pkl", "code/__torch__.py"):
            archive.writestr(f"model/{name}", b"\x80\x02}.")
    with pytest.raises(CheckpointError, match="is a TorchScript program, not weights"):
        convert(tmp_path / "model.pt", tmp_path / "out.safetensors")
