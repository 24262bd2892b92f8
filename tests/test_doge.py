"""DOGE against the published loss under autograd, and what its lengths, masks and subspace promise."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matrices import KEY, draw, moved, of_matrices, seeds, shapes
from strategies import assert_close

from adamerging_lib import TaskVectors, merge
from adamerging_lib.methods.doge import doge_vectors, shared_subspace


def plain(stack: list[torch.Tensor], *, norm, keep, subspace, steps, lr, per_task, update) -> list[torch.Tensor]:
    """(T_k + Δ_k) ⊙ M_k and λ_k, from the loss as it is written, one term per task, differentiated by autograd."""
    tasks, r = len(stack), min(stack[0].shape)
    scale = [norm / t.norm() for t in stack]
    each = max(1, r // tasks)
    joined = torch.cat([torch.linalg.svd(t, full_matrices=False)[0][:, :each] for t in stack], 1)
    basis = torch.linalg.svd(joined, full_matrices=False)[0][:, : r // subspace]
    outside = torch.eye(len(basis), dtype=basis.dtype) - basis @ basis.T
    deltas = [torch.nn.Parameter(torch.zeros_like(stack[0])) for _ in (stack if per_task else stack[:1])]
    optimiser = torch.optim.Adam(deltas, lr=lr)
    for _ in range(steps):
        optimiser.zero_grad()
        own = deltas if per_task else deltas * tasks
        both = sum(s * (t + d) for s, t, d in zip(scale, stack, own, strict=True))
        sum((t * (t - both)).sum(1).square().sum() for t in stack).backward()
        for d in deltas:
            d.grad = outside @ d.grad
        optimiser.step()
        if update:
            for d in deltas:
                d.data = outside @ d.data
    own = [d.detach() for d in (deltas if per_task else deltas * tasks)]
    masks = []
    for t in stack:
        rank = t.numel() - int(keep * t.numel())
        masks.append(t.abs() >= t.abs().flatten().sort().values[rank - 1] if rank else torch.ones_like(t).bool())
    return [(t + d) * m for t, d, m in zip(stack, own, masks, strict=True)], scale


@settings(max_examples=20)
@given(seeds, shapes, st.integers(2, 3), st.booleans(), st.booleans(), st.sampled_from([0.3, 0.75, 1.0]))
def test_against_the_published_loss(seed, shape, tasks, per_task, update, keep):
    stack = draw(seed, shape, tasks, 0.1)
    tv = of_matrices(*stack)
    hyper = {"norm": 0.07, "keep": keep, "lr": 1e-3}
    expected, scale = plain(stack, **hyper, subspace=2, steps=9, per_task=per_task, update=update)
    project = "update" if update else "gradient"
    found = doge_vectors(tv, **hyper, subspace=2, iterations=9, per_task=per_task, project=project)
    for k, one in enumerate(expected):
        wanted = one if per_task else scale[k] * one
        torch.testing.assert_close(found.vectors[KEY][k], wanted, rtol=1e-5, atol=1e-8)
    assert not any(t.any() for key, t in found.vectors.items() if key != KEY)
    state = merge("doge_ta", tv, **hyper, subspace=2, iterations=9, project=project).state_dict()
    if not per_task:
        torch.testing.assert_close(moved(tv, state), found.vectors[KEY].sum(0))
    assert all(torch.equal(state[key], t) for key, t in tv.pretrained.items() if key != KEY)


def test_every_task_has_the_same_length_in_every_matrix(task_vectors):
    """Queries, keys and values count as one matrix each."""
    vectors = doge_vectors(task_vectors, iterations=0, keep=1.0).vectors
    merged = [key for key, t in vectors.items() if t.any()]
    assert len(merged) == 8
    for key in merged:
        for part in vectors[key].chunk(3 if "in_proj" in key else 1, 1):
            torch.testing.assert_close(part.flatten(1).norm(dim=1), torch.full((3,), 0.07))


def test_lengths_of_task_vectors_do_not_matter_before_descent():
    a, b = draw(0, (5, 8), 2)
    one, other = (doge_vectors(of_matrices(a, c * b), iterations=0) for c in (1, 100))
    torch.testing.assert_close(one.vectors[KEY], other.vectors[KEY])


def test_delta_stays_out_of_the_shared_subspace_where_asked():
    stack = draw(1, (8, 8), 3, 0.1)
    tv = of_matrices(*stack)
    basis = shared_subspace(torch.stack(stack), 3)
    assert basis.shape == (8, 2)
    torch.testing.assert_close(basis.mT @ basis, torch.eye(2, dtype=basis.dtype))
    inside = {}
    for project in ("gradient", "update"):
        vectors = doge_vectors(tv, per_task=True, subspace=3, iterations=30, lr=1e-3, keep=1.0, project=project)
        delta = vectors.vectors[KEY] - torch.stack(stack)
        assert delta.norm() > 0.01
        inside[project] = (basis.mT @ delta).norm() / delta.norm()
    assert inside["update"] < 1e-12 < 0.01 < inside["gradient"]


def test_subspaces_of_the_two_forms():
    """A sixth of the rank in DOGE TA, a K-th of it in DOGE AM."""
    tv = of_matrices(*draw(7, (12, 12), 3, 0.1))
    for per_task, subspace in ((False, 6), (True, 3)):
        one, other, wrong = (
            doge_vectors(tv, per_task=per_task, subspace=s, iterations=3).vectors[KEY] for s in (None, subspace, 4)
        )
        assert torch.equal(one, other) and not torch.equal(one, wrong)


def test_descent_lowers_the_loss():
    stack = draw(2, (6, 6), 3, 0.1)
    tv = of_matrices(*stack)

    def loss(iterations: int) -> float:
        both = doge_vectors(tv, iterations=iterations, keep=1.0).vectors[KEY].sum(0)
        return sum((t * (t - both)).sum(1).square().sum() for t in stack).item()

    assert loss(0) > loss(50) > loss(400)


def test_masks_keep_the_largest_entries_of_all_matrices_together(task_vectors):
    """30 % of each task's entries over all its matrices, not of every matrix."""
    vectors = doge_vectors(task_vectors, per_task=True, iterations=0, keep=0.3).vectors
    keys = [key for key, t in vectors.items() if t.any()]
    for k in range(3):
        whole = torch.cat([task_vectors.vectors[key][k].flatten() for key in keys])
        kept = torch.cat([vectors[key][k].flatten() for key in keys])
        size = int(0.3 * len(whole)) + 1
        assert int((kept != 0).sum()) == size
        assert torch.equal(kept[kept != 0].abs().sort().values, whole.abs().sort().values[-size:])
    shares = {round((vectors[key] != 0).float().mean().item(), 2) for key in keys}
    assert len(shares) > 1


def test_fused_attention_is_three_matrices():
    """The same block in open_clip's and in Hugging Face's names gives the same merged weights."""
    width, stack = 6, draw(3, (18, 6), 3, 0.05)
    fused = {"blocks.0.attn.in_proj_weight": torch.zeros(18, 6, dtype=torch.float64)}
    names = [f"encoder.layers.0.self_attn.{part}_proj.weight" for part in "qkv"]
    split = {name: torch.zeros(width, width, dtype=torch.float64) for name in names}
    tasks = {f"t{k}": t for k, t in enumerate(stack)}
    one = TaskVectors.from_state_dicts(fused, {k: {next(iter(fused)): t} for k, t in tasks.items()})
    parts = {k: dict(zip(names, t.chunk(3), strict=True)) for k, t in tasks.items()}
    other = TaskVectors.from_state_dicts(split, parts)
    a, b = (merge("doge_ta", tv, iterations=20, lr=1e-3).state_dict() for tv in (one, other))
    torch.testing.assert_close(next(iter(a.values())), torch.cat([b[name] for name in names]))


def test_a_task_that_is_zero_in_a_matrix_adds_nothing():
    a, b = draw(4, (5, 8), 2, 0.1)
    both, alone = of_matrices(a, torch.zeros_like(a), b), of_matrices(a, b)
    vectors = doge_vectors(both, iterations=0)
    assert not vectors.vectors[KEY][1].any()
    states = [moved(tv, merge("doge_ta", tv, iterations=0).state_dict()) for tv in (both, alone)]
    torch.testing.assert_close(*states)


def test_order_of_tasks_and_half_precision(task_vectors):
    turned = task_vectors.subset(task_vectors.tasks[::-1])
    one, other = (merge("doge_ta", tv, iterations=30).state_dict() for tv in (task_vectors, turned))
    assert_close(one, other, rtol=1e-5, atol=1e-6)
    low = {key: t.bfloat16() if t.is_floating_point() else t for key, t in task_vectors.pretrained.items()}
    state = merge("doge_ta", dataclasses.replace(task_vectors, pretrained=low), iterations=2).state_dict()
    assert state["proj"].dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("hyper", "message"),
    [
        ({"norm": 0}, "norm=0 must be a positive number"),
        ({"lr": -1.0}, "lr=-1.0 must be a positive number"),
        ({"iterations": 1.5}, "iterations=1.5 must be a whole number of at least 0"),
        ({"subspace": -6}, "subspace=-6 must be a whole number of at least 1"),
        ({"keep": 30}, r"keep=30 is not a share in \(0, 1\]: 20 % is 0.2"),
        ({"project": "both"}, "project 'both' is unknown"),
    ],
)
def test_bad_hyper(task_vectors, hyper, message):
    with pytest.raises(ValueError, match=message):
        merge("doge_ta", task_vectors, **hyper)


def test_no_matrix():
    state = {"scale": torch.ones(3)}
    with pytest.raises(ValueError, match="DOGE finds no matrix among scale"):
        merge("doge_ta", TaskVectors.from_state_dicts(state, {"a": state}))
