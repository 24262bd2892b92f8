"""Coefficient tables: names, files, and the authors' released Python file."""

from __future__ import annotations

import json

import pytest
import torch

from adamerging_lib import Coefficients, read_authors_file
from adamerging_lib.layers import block_rows


def table(dtype=torch.float32):
    values = torch.rand(2, 3, generator=torch.Generator().manual_seed(0), dtype=dtype)
    return Coefficients(values, ("a", "b"), ("x", "y", "z"), "tensor")


def test_frame_has_rows_down_and_tasks_across():
    c = table()
    frame = c.to_frame()
    assert list(frame.index) == ["x", "y", "z"] and list(frame.columns) == ["a", "b"]
    assert frame.index.name == "row" and frame.columns.name == "task"
    assert frame.loc["y", "b"] == c.values[1, 1].item()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_file_keeps_every_bit(tmp_path, dtype):
    c = table(dtype)
    c.save(tmp_path / "c.json")
    back = Coefficients.load(tmp_path / "c.json")
    assert torch.equal(back.values, c.values) and back.values.dtype == dtype
    assert (back.tasks, back.rows, back.granularity) == (c.tasks, c.rows, c.granularity)


def test_aligned_reorders_by_name():
    c = table()
    assert torch.equal(c.aligned(("b", "a"), ("z", "x", "y")), c.values[[1, 0]][:, [2, 0, 1]])
    with pytest.raises(ValueError, match=r"differ in their row names: \['w', 'z'\]"):
        c.aligned(("a", "b"), ("x", "y", "w"))
    with pytest.raises(ValueError, match=r"task names: \['b'\]"):
        c.aligned(("a",), ("x", "y", "z"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(3, 2), ("a", "b"), ("x", "y", "z"), "tensor"), r"shape \[3, 2\], their names say \[2, 3\]"),
        ((torch.zeros(2, 2), ("a", "a"), ("x", "y"), "tensor"), "task names of the coefficients repeat"),
        ((torch.zeros(2, 2), ("a", "b"), ("x", "x"), "tensor"), "row names of the coefficients repeat"),
        ((torch.full((1, 1), float("nan")), ("a",), ("x",), "tensor"), "NaN or Inf"),
        ((torch.zeros(1, 1, dtype=torch.int64), ("a",), ("x",), "tensor"), "must be a float32 or float64 tensor"),
        ((torch.zeros(1, 1), ("a",), ("x",), "layer"), "granularity 'layer' is unknown"),
    ],
)
def test_bad_tables(arguments, message):
    with pytest.raises(ValueError, match=message):
        Coefficients(*arguments)


def test_bad_files_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"no coefficient table at .*nowhere"):
        Coefficients.load(tmp_path / "nowhere")
    path = tmp_path / "c.json"
    table().save(path)
    content = json.loads(path.read_text())
    for change in ({"schema": 2}, {"values": [[1.0]]}, {"values": "x"}, {"dtype": "int64"}):
        path.write_text(json.dumps({**content, **change}))
        with pytest.raises(ValueError, match=r"c\.json is no coefficient table"):
            Coefficients.load(path)
    path.write_text(json.dumps({"schema": 1}))
    with pytest.raises(ValueError, match=r"c\.json is no coefficient table"):
        Coefficients.load(path)
    path.write_text("{")
    with pytest.raises(ValueError, match=r"c\.json is no coefficient table"):
        Coefficients.load(path)


# Made up in the shape of the authors' file: a function that picks a table by method and model.
AUTHORS = """
import os
os.remove({victim!r})

def get(method='task_arithmetic', model='ViT-B-32'):
    tasks = 8
    average = 1 / tasks
    prior = 0.3
    print(method)
    if method == 'weight_averaging':
        ralpha = [[1.0, average, average, average, average, average, average, average, average]]
    elif method in ['task_arithmetic', 'ties_merging']:
        ralpha = [[1.0, prior, prior, prior, prior, prior, prior, prior, prior]]
    elif method == 'tw' and model == 'ViT-B-32':
        ralpha = [[1.0000, 0.1, 0.2, 0.3, 0.4, -0.5, 0.6, 7e-1, .8]]
    elif method == 'lw' and model == 'ViT-B-32':
        ralpha = {big!r}
    elif method == 'odd':
        ralpha = [[1.0, 0.5], [1.0]]
    elif method == 'call':
        ralpha = [[float('nan')]]
    else:
        raise NotImplementedError
    return ralpha

plain = [[0.5, 0.25]]
words = ['a', 'b']
"""


def test_authors_file_is_read_but_never_run(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("still here")
    big = [[1.0, *(round((r + k) / 1000, 4) for k in range(8))] for r in range(158)]
    path = tmp_path / "merging_cofficient.py"
    path.write_text(AUTHORS.format(victim=str(victim), big=big))
    tables = read_authors_file(path)
    assert victim.read_text() == "still here"
    assert set(tables) == {
        ("weight_averaging",), ("task_arithmetic",), ("ties_merging",), ("tw", "ViT-B-32"), ("lw", "ViT-B-32"),
        ("plain",),
    }  # fmt: skip
    assert tables["weight_averaging",].values.tolist() == [[0.125]] * 8
    assert tables["ties_merging",].values.tolist() == [[0.3]] * 8
    tw = tables["tw", "ViT-B-32"]
    assert tw.granularity == "task" and tw.rows == ("all",) and tw.tasks[:2] == ("SUN397", "Cars")
    assert tw.values[:, 0].tolist() == [0.1, 0.2, 0.3, 0.4, -0.5, 0.6, 0.7, 0.8]
    assert tables["plain",].values.tolist() == [[0.5], [0.25]] and tables["plain",].tasks == ("task_0", "task_1")
    lw = tables["lw", "ViT-B-32"]
    assert lw.granularity == "tensor" and lw.values.shape == (8, 158)
    assert lw.values[3, 100].item() == big[100][4]


def test_rows_of_the_authors_tables_follow_their_models(tmp_path):
    path = tmp_path / "c.py"
    for count, blocks in ((158, 12), (302, 24)):
        path.write_text(f"t = {[[0.3] * 8] * count}")
        rows = read_authors_file(path)["t",].rows
        assert len(rows) == count and len(set(rows)) == count
        assert rows[:4] == ("positional_embedding", "text_projection", "logit_scale", "visual.class_embedding")
        assert rows[9] == "visual.transformer.resblocks.0.ln_1.weight"
        assert rows[11:13] == tuple(f"visual.transformer.resblocks.0.attn.in_proj_{p}" for p in ("weight", "bias"))
        assert rows[-5:-3] == ("visual.ln_post.weight", "visual.ln_post.bias") and rows[-1] == "ln_final.bias"
        groups = list(block_rows(rows).values())
        # Six tensors of the text tower came along in the pickles; the image tower has 152 or 296.
        assert groups.count("text") == 6 and groups.count(f"block_{blocks - 1}") == 12
        assert groups[:3] == groups[-3:] == ["text"] * 3


def test_files_without_tables_are_refused(tmp_path):
    with pytest.raises(ValueError, match="nowhere.py cannot be read"):
        read_authors_file(tmp_path / "nowhere.py")
    path = tmp_path / "c.py"
    path.write_text("def (")
    with pytest.raises(ValueError, match="cannot be read as Python"):
        read_authors_file(path)
    path.write_text("a = 1\nb = [1, 2]\nc = [['x']]\nd = []\ne = [[]]\nf = [[1 / 0]]\n")
    with pytest.raises(ValueError, match="holds no nested list of numbers"):
        read_authors_file(path)
