"""Given coefficients: the authors' tables on their own checkpoints, by hand, without training."""

from __future__ import annotations

import pytest
import torch
from clips import ImageEncoder, clip, pickled

from adamerging_lib import Coefficients, TaskVectors, merge_with, read_authors_file
from adamerging_lib.checkpoints import convert, load_encoder
from adamerging_lib.layers import TEXT_AFTER, TEXT_BEFORE, encoder_names, tower_names

TASKS = ("mnist", "svhn", "dtd")


def encoders():
    return {name: clip(seed) for seed, name in enumerate(("pretrained", *TASKS))}


def table(rows, tasks=TASKS, granularity="tensor"):
    values = torch.randn(len(tasks), len(rows), generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    return Coefficients(values, tasks, rows, granularity)


def by_hand(states, base, coefficients, name):
    """θ0 + Σ_k λ_k T_k of one tensor, λ under the name that the authors' table has for it."""
    frame = coefficients.to_frame()
    steps = [frame.loc[name, task] * (states[task] - base).double() for task in coefficients.tasks]
    return (base.double() + sum(steps)).float()


def test_names_are_those_of_open_clip():
    model = clip()
    assert tuple(model.visual.state_dict()) == tower_names(2)
    del model.transformer
    assert tuple(model.state_dict()) == encoder_names(2)
    assert [len(encoder_names(blocks)) for blocks in (12, 24)] == [158, 302]


def test_a_published_table_on_published_checkpoints(tmp_path, monkeypatch):
    """From pickled image encoders and a Python file of numbers to the merged model; text rows are left out by name."""
    files = {}
    for name, model in encoders().items():
        path = pickled(monkeypatch, tmp_path / f"{name}.pt", ImageEncoder(model))
        files[name] = convert(path, tmp_path / f"{name}.safetensors").target
    encoder = clip().visual
    pretrained = load_encoder(files["pretrained"], encoder)
    experts = {task: load_encoder(files[task], encoder, pretrained) for task in TASKS}
    tv = TaskVectors.from_state_dicts(pretrained, experts)

    rows = encoder_names(2)
    numbers = table(rows).values.t().tolist()
    (tmp_path / "merging_cofficient.py").write_text(f"lw = {[[1.0, *row] for row in numbers]}")
    (read,) = read_authors_file(tmp_path / "merging_cofficient.py").values()
    published = Coefficients(read.values, TASKS, rows, "tensor")

    merged = merge_with(tv, published)
    assert merged.hyper == {"granularity": "tensor", "left_out": TEXT_BEFORE + TEXT_AFTER} and merged.tasks == TASKS
    assert merged.coefficients.rows == tuple(pretrained) and list(merged.state) == list(pretrained)
    for key, tensor in merged.state.items():
        states = {task: experts[task][key] for task in TASKS}
        torch.testing.assert_close(
            tensor, by_hand(states, pretrained[key], published, f"visual.{key}"), rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("prefix", ["model.", ""])
def test_whole_image_encoders_use_the_rows_of_their_text_leftovers(prefix):
    """As the authors merge them: two tensors are called positional_embedding, and each has its own row."""
    states = {}
    for name, model in encoders().items():
        del model.transformer
        states[name] = {f"{prefix}{key}": t for key, t in model.state_dict().items()}
    base = states.pop("pretrained")
    published = table(encoder_names(2))
    merged = merge_with(TaskVectors.from_state_dicts(base, states), published)
    assert merged.hyper["left_out"] == ()
    for name in ("positional_embedding", "visual.positional_embedding", "logit_scale", "visual.proj"):
        own = {task: state[prefix + name] for task, state in states.items()}
        expected = by_hand(own, base[prefix + name], published, name)
        torch.testing.assert_close(merged.state[prefix + name], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("granularity", ["task", "block", "module", "tensor"])
def test_tables_of_our_own_and_their_order(granularity):
    states = {name: dict(model.visual.state_dict()) for name, model in encoders().items()}
    tv = TaskVectors.from_state_dicts(states.pop("pretrained"), states)
    own = table(tv.rows(granularity).names, granularity=granularity)
    merged = merge_with(tv, own)
    expected = tv.merge(own.values, granularity)
    shuffled = Coefficients(own.values.flip(0).flip(1), own.tasks[::-1], own.rows[::-1], granularity)
    for found in (merged, merge_with(tv, shuffled)):
        assert all(torch.equal(found.state[key], expected[key]) for key in expected)
        assert torch.equal(found.coefficients.values, own.values)


def test_what_does_not_fit_is_named():
    states = {name: dict(model.visual.state_dict()) for name, model in encoders().items()}
    tv = TaskVectors.from_state_dicts(states.pop("pretrained"), states)
    with pytest.raises(ValueError, match=r"task names: \['SVHN', 'svhn'\]"):
        merge_with(tv, table(encoder_names(2), ("mnist", "SVHN", "dtd")))
    with pytest.raises(ValueError, match=r"row names: \['visual.transformer.resblocks.2.attn"):
        merge_with(tv, table(encoder_names(3)))
    with pytest.raises(ValueError, match=r"row names: \['visual.transformer.resblocks.1.attn"):
        merge_with(tv, table(encoder_names(1)))
    with pytest.raises(ValueError, match=r"row names: \['head.bias'\]"):
        merge_with(tv, table((*encoder_names(2), "head.bias")))
