"""Products of small factors stand for whole task vectors: the same merge, the same gradient."""

from __future__ import annotations

import dataclasses

import adapted
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_adapt_transformers import tokens

from adamerging_lib.adapting.adapt import adapt
from adamerging_lib.adapting.parts import take_apart
from adamerging_lib.task_vectors import TaskVectors
from adamerging_lib.vectors.lowrank import Factors


@st.composite
def vectors(draw):
    """θ0, factors of random ranks (some tasks without), and the same multiplied out."""
    seed, tasks = draw(st.integers(0, 999)), draw(st.integers(1, 4))
    generator = torch.Generator().manual_seed(seed)
    shape = draw(st.sampled_from([(3, 5), (4, 2, 3), (2, 3, 1, 2)]))
    m, n = shape[0], torch.Size(shape[1:]).numel()

    def normal(*size):
        return torch.randn(size, generator=generator, dtype=torch.float64)

    ranks = [draw(st.lists(st.integers(1, 3), max_size=2)) for _ in range(tasks)]
    ranks[0] = ranks[0] or [1]
    products = [[(normal(m, r), normal(r, n)) for r in own] for own in ranks]
    dense = torch.stack([sum((b @ a for b, a in own), torch.zeros(m, n).double()).view(shape) for own in products])
    other = normal(tasks, 4)
    names, base = tuple(map(str, range(tasks))), {"w": normal(*shape), "v": normal(4)}
    small = TaskVectors(names, base, {"w": Factors.of(products, torch.Size(shape)), "v": other})
    return small, dataclasses.replace(small, vectors={"w": dense, "v": other}), normal(tasks, 2), normal(*shape)


@given(vectors(), st.sampled_from(["task", "tensor"]))
@settings(max_examples=60, deadline=None)
def test_merge_and_gradient_are_those_of_whole_vectors(made, granularity):
    small, whole, coefficients, gradient = made
    given_ = coefficients if granularity == "tensor" else coefficients[:, :1]
    for key, t in whole.merge(given_, granularity).items():
        torch.testing.assert_close(small.merge(given_, granularity)[key], t, rtol=1e-10, atol=1e-10)
    grads = {"w": gradient, "v": None}
    one, other = (tv.coefficient_gradient(grads, granularity) for tv in (small, whole))
    torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
    for k, t in enumerate(whole.vectors["w"]):
        torch.testing.assert_close(small.vectors["w"][k], t, rtol=1e-10, atol=1e-10)


@given(vectors())
@settings(max_examples=20, deadline=None)
def test_in_float32_and_moved(made):
    small, whole, coefficients, _ = made
    narrow = [
        dataclasses.replace(tv, pretrained={k: t.float() for k, t in tv.pretrained.items()}).to(
            vectors_dtype=torch.float32
        )
        for tv in (small, whole)
    ]
    one, other = (tv.to("cpu", widen=True).merge(coefficients.float(), "tensor") for tv in narrow)
    assert one["w"].dtype == torch.float32
    for key, t in other.items():
        torch.testing.assert_close(one[key], t, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_adapters_keep_their_factors(kind, tmp_path):
    """GPT-2 stores its weights [in, out]: the same fit as with whole vectors."""
    target = {"bert": ["query", "value"], "gpt2": ["c_attn"]}[kind]
    places = {}
    for seed, task in enumerate(("one", "two")):
        (tmp_path / task).mkdir()
        # Of the second task only the first block: a tensor may be changed by one adapter alone.
        more = {"layers_to_transform": [0]} if seed else {}
        places[task] = adapted.adapt(
            adapted.made(kind), tmp_path / task, seed, task_type="SEQ_CLS", target_modules=target, **more
        )
    head = {"bert": "classifier.*", "gpt2": "score.*"}[kind]
    base, experts = places["one"].base, {task: place.folder for task, place in places.items()}
    small = take_apart(adapted.made(kind), base, experts, head).tv
    whole = take_apart(adapted.made(kind), base, experts, head, factored=False).tv
    assert all(isinstance(t, Factors) and t.b.shape[1] in (2, 4) for t in small.vectors.values())
    assert small.vectors.keys() == whole.vectors.keys() and len(small.vectors) == {"bert": 4, "gpt2": 2}[kind]
    for key, t in whole.vectors.items():
        for k in range(2):
            torch.testing.assert_close(small.vectors[key][k], t[k], rtol=1e-5, atol=1e-6)
    options = {"data": {"one": tokens(1), "two": tokens(2)}, "private": head, "steps": 4, "lr": 0.05, "progress": False}
    one = adapt(adapted.made(kind), base, experts, **options)
    merged = {task: {**place.merged} for task, place in places.items()}
    other = adapt(adapted.made(kind), base, merged, **options)
    rows = [other.coefficients.rows.index(row) for row in one.coefficients.rows]
    moving = (one.trajectory[-1] - one.trajectory[0]).abs() > 0
    torch.testing.assert_close(one.trajectory[-1][moving], other.trajectory[-1][:, rows][moving], rtol=1e-3, atol=1e-3)
    assert moving.any() and set(one.state) | set(one.overrides["one"]) >= set(small.vectors)
    assert adapt(adapted.made(kind), base, experts, vectors="ties", **options).trajectory.shape == one.trajectory.shape
