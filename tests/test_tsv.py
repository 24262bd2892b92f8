"""TSV-M against plain SVDs; tasks that do not meet are summed, tasks that are one another count once."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from matrices import KEY, assert_others_are_means, counts, draw, moved, of_matrices, seeds, shapes

from adamerging_lib import merge
from adamerging_lib.vectors.spectral import polar, side_by_side


@given(seeds, shapes, counts, st.floats(0.1, 2))
def test_against_plain_svds(seed, shape, tasks, scaling):
    stack = draw(seed, shape, tasks)
    tv = of_matrices(*stack)
    each = min(shape) // tasks
    us, ss, vs = zip(*(torch.linalg.svd(t, full_matrices=False) for t in stack), strict=True)
    left, right = torch.cat([u[:, :each] for u in us], 1), torch.cat([v[:each] for v in vs])
    (a, _, b), (c, _, d) = (torch.linalg.svd(x, full_matrices=False) for x in (left, right))
    expected = a @ b @ torch.diag(torch.cat([s[:each] for s in ss])) @ c @ d
    state = merge("tsv_m", tv, scaling=scaling).state_dict()
    torch.testing.assert_close(moved(tv, state), scaling * expected, rtol=1e-5, atol=1e-7)
    assert_others_are_means(tv, state, scaling)


@given(seeds, shapes, counts)
def test_factors_are_orthogonal_and_singular_values_are_the_tasks(seed, shape, tasks):
    stack = draw(seed, shape, tasks)
    u, s, vh = side_by_side(torch.stack(stack))
    eye = torch.eye(len(s), dtype=torch.float64)
    torch.testing.assert_close(polar(u).mT @ polar(u), eye, atol=1e-8, rtol=0)
    torch.testing.assert_close(polar(vh) @ polar(vh).mT, eye, atol=1e-8, rtol=0)
    tv = of_matrices(*stack)
    found = torch.linalg.svdvals(moved(tv, merge("tsv_m", tv).state_dict()))[: len(s)]
    torch.testing.assert_close(found, s.sort(descending=True).values)


@given(seeds, shapes)
def test_one_task_is_itself(seed, shape):
    (t,) = draw(seed, shape, 1)
    tv = of_matrices(t)
    torch.testing.assert_close(moved(tv, merge("tsv_m", tv).state_dict()), t)


def test_tasks_in_orthogonal_spaces_are_summed():
    rows, columns = (torch.linalg.qr(t)[0] for t in draw(0, (6, 6), 2))
    one = 3 * rows[:, :2] @ columns[:2]
    other = rows[:, 2:4] @ torch.diag(torch.tensor([2.0, 1.0], dtype=torch.float64)) @ columns[2:4]
    tv = of_matrices(one, other, torch.zeros_like(one))
    torch.testing.assert_close(moved(tv, merge("tsv_m", tv).state_dict()), one + other)


def test_equal_tasks_count_once():
    """U = [U_1 U_1] has no length in half its directions: what a library would put there must not matter."""
    (t,) = draw(1, (6, 6), 1)
    tv = of_matrices(t, t)
    u, s, vh = torch.linalg.svd(t)
    torch.testing.assert_close(moved(tv, merge("tsv_m", tv).state_dict()), (u[:, :3] * s[:3]) @ vh[:3])


def test_more_tasks_than_ranks():
    stack = draw(2, (2, 3), 4)
    tv = of_matrices(*stack)
    delta = moved(tv, merge("tsv_m", tv).state_dict())
    assert bool(torch.isfinite(delta).all()) and delta.norm() > 0
    assert merge("tsv_m", tv).state_dict()[KEY].shape == (2, 3)


@given(seeds, shapes, counts)
def test_scales_with_the_task_vectors(seed, shape, tasks):
    stack = draw(seed, shape, tasks)
    one, doubled = of_matrices(*stack), of_matrices(*[2 * t for t in stack])
    expected = 2 * moved(one, merge("tsv_m", one).state_dict())
    torch.testing.assert_close(moved(doubled, merge("tsv_m", doubled).state_dict()), expected)
