"""Iso-C and Iso-CTS against plain SVDs, and what a flat spectrum means."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from matrices import KEY, assert_others_are_means, counts, draw, moved, of_matrices, seeds, shapes

from adamerging_lib import merge
from adamerging_lib.methods.iso import subspaces


@given(seeds, shapes, counts, st.floats(0.1, 2))
def test_iso_c_against_a_plain_svd(seed, shape, tasks, scaling):
    stack = draw(seed, shape, tasks)
    tv = of_matrices(*stack)
    state = merge("iso_c", tv, scaling=scaling).state_dict()
    u, s, vh = torch.linalg.svd(sum(stack), full_matrices=False)
    torch.testing.assert_close(moved(tv, state), scaling * s.mean() * (u @ vh))
    assert_others_are_means(tv, state, scaling)


@given(seeds, shapes, counts, st.sampled_from(["iso_c", "iso_cts"]))
def test_singular_values_are_equal_and_scale(seed, shape, tasks, method):
    stack = draw(seed, shape, tasks)
    tv = of_matrices(*stack)
    delta = moved(tv, merge(method, tv).state_dict())
    s = torch.linalg.svdvals(delta)
    torch.testing.assert_close(s, s.mean().expand_as(s))
    doubled = of_matrices(*[2 * t for t in stack])
    torch.testing.assert_close(moved(doubled, merge(method, doubled).state_dict()), 2 * delta)
    torch.testing.assert_close(moved(tv, merge(method, tv, scaling=3.0).state_dict()), 2 * delta)


def plain_iso_cts(stack: list[torch.Tensor], common: float) -> torch.Tensor:
    """As the paper's algorithm reads, one SVD after the other."""
    tasks, r = len(stack), min(stack[0].shape)
    each = round((r - int(r * common)) / tasks)
    u, s, vh = torch.linalg.svd(sum(stack), full_matrices=False)
    keep = r - each * tasks
    us, ss, vs = [], [], []
    for t in stack:
        a, b, c = torch.linalg.svd(t - u[:, :keep] @ u[:, :keep].T @ t, full_matrices=False)
        us, ss, vs = [*us, a[:, :each]], [*ss, b[:each]], [*vs, c[:each]]
    left, right = torch.cat([*us, u[:, :keep]], 1), torch.cat([*vs, vh[:keep]])
    (a, _, b), (c, _, d) = (torch.linalg.svd(x, full_matrices=False) for x in (left, right))
    return torch.cat([*ss, s[:keep]]).mean() * (a @ b @ c @ d)


@given(seeds, shapes, st.integers(1, 3), st.sampled_from([0.4, 0.5, 0.8, 1.0]))
def test_iso_cts_against_plain_svds(seed, shape, tasks, common):
    stack = draw(seed, shape, tasks)
    tv = of_matrices(*stack)
    state = merge("iso_cts", tv, scaling=1.2, common=common).state_dict()
    torch.testing.assert_close(moved(tv, state), 1.2 * plain_iso_cts(stack, common), rtol=1e-5, atol=1e-7)
    assert_others_are_means(tv, state, 1.2)


@given(seeds, shapes, st.integers(1, 3), st.floats(0, 1))
def test_task_directions_are_orthogonal_to_common_ones(seed, shape, tasks, common):
    stack = torch.stack(draw(seed, shape, tasks))
    u, s, vh, each = subspaces(stack, common)
    r = min(shape)
    assert u.shape == (shape[0], r) and s.shape == (r,) and vh.shape == (r, shape[1]) and 0 <= each * tasks <= r
    own, shared = u[:, : each * tasks], u[:, each * tasks :]
    torch.testing.assert_close(own.mT @ shared, torch.zeros(own.shape[1], shared.shape[1], dtype=own.dtype))
    assume(each)
    for k in range(tasks):
        mine = own[:, k * each : (k + 1) * each]
        assert bool(((mine.mT @ mine).diagonal() - 1 < 1e-9).all())


def test_the_published_split_of_rank_768():
    """152 task-specific and 616 common directions for eight tasks at ViT-B/32."""
    stack = torch.zeros(8, 768, 768, dtype=torch.float64)
    stack.diagonal(dim1=1, dim2=2).copy_(torch.arange(1, 769).expand(8, -1))
    assert subspaces(stack, 0.8)[3] == 19


def test_all_common_is_iso_c(task_vectors):
    one, other = (merge(m, task_vectors, **h).state_dict() for m, h in (("iso_c", {}), ("iso_cts", {"common": 1.0})))
    for key, t in one.items():
        torch.testing.assert_close(other[key], t)


@pytest.mark.parametrize("method", ["iso_c", "iso_cts"])
def test_no_direction_comes_from_nowhere(method):
    """Rank two in five: Δ stays in the spaces of the task vectors, whatever basis a library would complete."""
    a, b = draw(5, (5, 8), 2)
    low = a[:, :2] @ b[:2]
    tv = of_matrices(low, 2 * low, -0.5 * low)
    delta = moved(tv, merge(method, tv, scaling=1.0).state_dict())
    u, s, vh = torch.linalg.svd(2.5 * low)
    torch.testing.assert_close(delta, s.sum() / 5 * (u[:, :2] @ vh[:2]) if method == "iso_c" else delta)
    outside = torch.eye(5, dtype=torch.float64) - u[:, :2] @ u[:, :2].T
    torch.testing.assert_close(outside @ delta, torch.zeros_like(delta))
    assert delta.norm() > 0


def test_more_tasks_than_ranks():
    tv = of_matrices(*draw(6, (3, 4), 9))
    assert bool(torch.isfinite(merge("iso_cts", tv, common=0.0).state_dict()[KEY]).all())
    assert subspaces(torch.stack(draw(6, (3, 4), 9)), 0.0)[3] == 0
    assert subspaces(torch.stack(draw(6, (7, 7), 4)), 0.0)[3] == 1  # 7/4 rounds to 2, which would need rank 8


@pytest.mark.parametrize("common", [-0.1, 1.1, True, float("nan")])
def test_bad_share(task_vectors, common):
    with pytest.raises(ValueError, match=r"is not a share in \[0, 1\]: 80 % is 0.8"):
        merge("iso_cts", task_vectors, common=common)
