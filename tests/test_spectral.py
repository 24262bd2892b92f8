"""Which tensors are matrices, and the SVD and polar factor that have an answer for every matrix."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from matrices import draw, seeds, shapes

from adamerging_lib import TaskVectors
from adamerging_lib.vectors.spectral import block_matrices, matrices, polar, side_by_side, svd


def named(**shapes) -> TaskVectors:
    state = {key.replace("__", "."): torch.zeros(shape) for key, shape in shapes.items()}
    return TaskVectors.from_state_dicts(state, {"a": state})


def test_matrices_of_a_suite(task_vectors):
    names = set(matrices(task_vectors))
    assert {"positional_embedding", "proj"} <= names and not {"conv1.weight", "class_embedding"} & names
    inside = set(block_matrices(task_vectors))
    assert inside == {n for n in names if n.startswith("transformer.resblocks.")} and len(inside) == 8
    assert matrices(named(visual__proj=(2, 2), text_projection=(2, 2), x__text_projection__weight=(2, 2))) == (
        "visual.proj",
    )


def test_blocks_in_other_libraries_names():
    hugging = named(
        vision_model__embeddings__position_embedding__weight=(5, 4),
        vision_model__encoder__layers__0__self_attn__q_proj__weight=(4, 4),
        vision_model__encoder__layers__0__self_attn__q_proj__bias=(4,),
        vision_model__encoder__layers__0__layer_norm1__weight=(4,),
        vision_model__encoder__layers__0__mlp__fc1__weight=(8, 4),
        visual_projection__weight=(3, 4),
    )
    assert [key.rpartition("layers.0.")[2] for key in block_matrices(hugging)] == [
        "self_attn.q_proj.weight",
        "mlp.fc1.weight",
    ]
    timm = named(
        pos_embed=(5, 4),
        blocks__0__attn__qkv__weight=(12, 4),
        blocks__0__attn__relative_position_bias_table=(9, 2),
        head__weight=(3, 4),
    )
    assert block_matrices(timm) == ("blocks.0.attn.qkv.weight",)
    generic = named(first__weight=(3, 4), first__bias=(3,), second=(2, 3))
    assert block_matrices(generic) == ("first.weight", "second")


@given(seeds, shapes)
def test_svd_is_the_libraries(seed, shape):
    (a, b) = draw(seed, shape, 2)
    for one, u, s, vh in zip((a, b), *svd(torch.stack([a, b])), strict=True):
        torch.testing.assert_close((u * s) @ vh, one)
        torch.testing.assert_close(s, torch.linalg.svdvals(one))
        eye = torch.eye(min(shape), dtype=torch.float64)
        torch.testing.assert_close(u.mT @ u, eye, atol=1e-9, rtol=0)
        torch.testing.assert_close(vh @ vh.mT, eye, atol=1e-9, rtol=0)
        lu, _, lvh = torch.linalg.svd(one, full_matrices=False)
        torch.testing.assert_close(polar(one), lu @ lvh, atol=1e-9, rtol=0)


@given(seeds, shapes)
def test_directions_without_length_are_zero(seed, shape):
    """Rank 2 and zero matrices: the factors that exist are exact, no others are made up."""
    a, b = draw(seed, shape, 2)
    low = a[:, :2] @ b[:2]
    u, s, vh = svd(low)
    assert bool((s[:2] > 0).all()) and not s[2:].any() and not u[:, 2:].any() and not vh[2:].any()
    torch.testing.assert_close((u * s) @ vh, low)
    p = polar(low)
    torch.testing.assert_close(p @ p.mT @ p, p)  # a partial isometry
    assert torch.linalg.matrix_rank(p) == 2
    assert not any(part.any() for part in svd(torch.zeros(shape)))


def test_svd_resolves_small_singular_values_of_float32():
    """1e-5 of the largest, where a float32 SVD is wrong in the third digit."""
    u, v = (torch.linalg.qr(t)[0] for t in draw(0, (30, 30), 2))
    s = torch.logspace(0, -5, 30, dtype=torch.float64)
    a = (u * s) @ v.mT
    torch.testing.assert_close(svd(a)[1], s, rtol=1e-6, atol=0)
    torch.testing.assert_close(polar(a), u @ v.mT, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("tasks", "each"), [(1, 5), (2, 2), (5, 1), (7, 1)])
def test_side_by_side(tasks, each):
    stack = torch.stack(draw(3, (5, 8), tasks))
    u, s, vh = side_by_side(stack)
    assert u.shape == (5, tasks * each) and s.shape == (tasks * each,) and vh.shape == (tasks * each, 8)
    for k, one in enumerate(stack):
        part = slice(k * each, (k + 1) * each)
        torch.testing.assert_close(s[part], torch.linalg.svdvals(one)[:each])
        torch.testing.assert_close(one @ vh[part].mT, u[:, part] * s[part])
