"""The algebra of task vectors."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import assert_close, assert_equal, checkpoints, copy, some_checkpoints

from adamerging_lib import CheckpointError, TaskVectors
from adamerging_lib.layers import block_rows
from adamerging_lib.task_vectors import GRANULARITIES

NARROW = (torch.float16, torch.bfloat16)
seeds = st.integers(0, 10_000)


def table(tv: TaskVectors, granularity: str, seed: int) -> torch.Tensor:
    shape = len(tv.tasks), len(tv.rows(granularity).names)
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(some_checkpoints(), seeds, st.sampled_from(GRANULARITIES))
def test_merge_is_the_formula(pair, seed, granularity):
    pretrained, experts = pair
    tv = TaskVectors.from_state_dicts(pretrained, experts)
    values, rows = table(tv, granularity, seed), tv.rows(granularity)
    expected = copy(pretrained)
    for key in tv.vectors:
        for k, task in enumerate(tv.tasks):
            change = experts[task][key].double() - pretrained[key].double()
            expected[key] = expected[key] + values[k, rows.index[key]].item() * change.to(pretrained[key].dtype)
    assert_close(tv.merge(values, granularity), expected, rtol=1e-5, atol=1e-6)


@given(some_checkpoints((torch.float64,)), seeds, seeds, st.floats(-2, 2), st.sampled_from(GRANULARITIES))
def test_merge_is_linear_in_coefficients(pair, one, two, share, granularity):
    tv = TaskVectors.from_state_dicts(*pair)
    a, b = table(tv, granularity, one), table(tv, granularity, two)
    mixed = tv.merge(share * a + (1 - share) * b, granularity)
    from_a, from_b = tv.merge(a, granularity), tv.merge(b, granularity)
    for key in tv.vectors:
        torch.testing.assert_close(mixed[key], share * from_a[key] + (1 - share) * from_b[key])


@given(some_checkpoints((torch.float64,)), seeds, st.sampled_from(GRANULARITIES))
def test_order_of_tasks_does_not_matter(pair, seed, granularity):
    tv = TaskVectors.from_state_dicts(*pair)
    values = table(tv, granularity, seed)
    turned = tv.subset(tv.tasks[::-1])
    assert_close(turned.merge(values.flip(0), granularity), tv.merge(values, granularity))


@given(some_checkpoints((torch.float32, torch.float64, *NARROW)), seeds)
def test_zero_task_vector_contributes_nothing(pair, seed):
    pretrained, experts = pair
    tv = TaskVectors.from_state_dicts(pretrained, experts)
    more = TaskVectors.from_state_dicts(pretrained, {**experts, "idle": copy(pretrained)})
    values = table(more, "tensor", seed)
    assert_close(more.merge(values, "tensor"), tv.merge(values[:-1], "tensor"))


@given(some_checkpoints((torch.float32, torch.float64, *NARROW)))
def test_zero_coefficients_give_the_pretrained_model_exactly(pair):
    tv = TaskVectors.from_state_dicts(*pair)
    assert_equal(tv.merge(torch.zeros(len(tv.tasks), 1), "task"), pair[0])


@given(some_checkpoints((torch.float32, torch.float64, *NARROW)))
def test_one_task_with_coefficient_one_is_that_expert(pair):
    pretrained, experts = pair
    for task, state in experts.items():
        tv = TaskVectors.from_state_dicts(pretrained, {task: state})
        assert_close(tv.merge(torch.ones(1, 1), "task"), state, rtol=1e-5, atol=1e-6)


@given(some_checkpoints((torch.float32, *NARROW)), seeds)
def test_inputs_are_not_mutated_and_dtypes_are_kept(pair, seed):
    pretrained, experts = pair
    before = copy(pretrained), {task: copy(state) for task, state in experts.items()}
    tv = TaskVectors.from_state_dicts(pretrained, experts)
    merged = tv.merge(table(tv, "tensor", seed), "tensor")
    for t in merged.values():
        t.zero_()
    assert_equal(pretrained, before[0])
    for task in experts:
        assert_equal(experts[task], before[1][task])
    assert {key: t.dtype for key, t in merged.items()} == {key: t.dtype for key, t in pretrained.items()}


@pytest.mark.parametrize("dtype", NARROW)
def test_half_precision_sums_in_float32_and_is_cast_once(dtype):
    pretrained, experts = checkpoints(3, 5, dtype)
    tv = TaskVectors.from_state_dicts(pretrained, experts)
    values = torch.full((5, 1), 0.3)
    wide = TaskVectors.from_state_dicts(
        {k: t.float() if t.is_floating_point() else t for k, t in pretrained.items()},
        {n: {k: t.float() if t.is_floating_point() else t for k, t in s.items()} for n, s in experts.items()},
    )
    exact = wide.merge(values, "task")
    for key, t in tv.merge(values, "task").items():
        assert torch.equal(t, exact[key].to(t.dtype))
    assert all(t.dtype == torch.float32 for t in tv.vectors.values())


def test_integer_buffers_come_from_the_pretrained_model():
    pretrained, experts = checkpoints(0, 2, torch.float32)
    experts["task_0"]["position_ids"] = torch.tensor([7, 7, 7])
    merged = TaskVectors.from_state_dicts(pretrained, experts).merge(torch.ones(2, 1), "task")
    assert torch.equal(merged["position_ids"], torch.arange(3))
    assert merged["position_ids"].data_ptr() != pretrained["position_ids"].data_ptr()


def test_tied_tensors_are_merged_once_under_one_coefficient():
    """Values decide, not memory: files know only values."""
    shared = torch.randn(3, generator=torch.Generator().manual_seed(0))
    pretrained = {"b": shared, "a": shared, "c": shared.clone()}
    tuned = shared + 1
    tv = TaskVectors.from_state_dicts(pretrained, {"x": {"a": tuned, "b": tuned, "c": tuned + 1}})
    assert list(tv.vectors) == ["a", "c"] and tv.rows("tensor").names == ("a", "c") and tv.tied == {"b": "a"}
    merged = tv.merge(torch.tensor([[0.5, 0.25]]), "tensor")
    assert list(merged) == ["b", "a", "c"]
    torch.testing.assert_close(merged["b"], shared + 0.5)
    untied = TaskVectors.from_state_dicts(pretrained, {"x": {"a": tuned, "b": tuned + 1, "c": tuned + 2}})
    assert list(untied.vectors) == ["b", "a", "c"] and not untied.tied


def with_statistics(seed, tasks=3):
    """A toy model with BatchNorm: the experts' variances are far below θ0's, so that sums go below zero."""
    pretrained, experts = checkpoints(seed, tasks, torch.float32)
    for k, state in enumerate([pretrained, *experts.values()]):
        state |= {"bn.running_var": torch.full((2,), 1.0 if k == 0 else 0.1 * k), "bn.running_mean": torch.randn(2)}
        state |= {"bn.num_batches_tracked": torch.tensor(float(k))}
    return pretrained, experts


def test_statistics_are_averaged_and_have_no_coefficient():
    pretrained, experts = with_statistics(0)
    tv = TaskVectors.from_state_dicts(pretrained, experts)
    assert list(tv.statistics) == ["bn.running_var", "bn.running_mean"]
    assert not tv.vectors.keys() & {*tv.statistics, "bn.num_batches_tracked"}
    for part, names in ((tv, list(experts)), (tv.subset(["task_2", "task_0"]), ["task_2", "task_0"])):
        merged = part.merge(torch.ones(len(names), 1), "task")
        for key in tv.statistics:
            expected = torch.stack([experts[name][key] for name in names]).double().mean(0).float()
            assert torch.equal(merged[key], expected)
        assert torch.equal(merged["bn.num_batches_tracked"], torch.tensor(0.0))
    assert tv.to(torch.device("cpu"), widen=True).statistics.keys() == tv.statistics.keys()


def test_what_has_no_entries_or_is_not_finite_alike_is_copied():
    mask = torch.full((2, 2), -float("inf")).triu(1)
    pretrained, experts = checkpoints(0, 2, torch.float16)
    for state in (pretrained, *experts.values()):
        state |= {"none": torch.zeros(0, 4), "attn_mask": mask.clone(), "other_mask": mask.clone()}
    tv = TaskVectors.from_state_dicts(pretrained, experts)
    assert not {"none", "attn_mask", "other_mask"} & (tv.vectors.keys() | tv.tied.keys())
    merged = tv.merge(torch.ones(2, 1), "task")
    assert torch.equal(merged["attn_mask"], mask) and merged["none"].shape == (0, 4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float8_e4m3fn])
def test_overflow_is_an_error(dtype):
    top = torch.finfo(dtype).max
    pretrained = {"w": torch.tensor([top / 4]).to(dtype)}
    experts = {name: {"w": torch.tensor([top]).to(dtype)} for name in ("a", "b")}
    tv = TaskVectors.from_state_dicts(pretrained, experts)
    with pytest.raises(ValueError, match=f"'w' holds NaN or Inf once merged, in {str(dtype)[6:]}: take a smaller"):
        tv.merge(torch.ones(2, 1), "task")
    assert tv.merge(torch.full((2, 1), 0.5), "task")["w"].float().isfinite()


def test_some_tensors_only():
    tv = TaskVectors.from_state_dicts(*with_statistics(1))
    one = tv.only(["scale", "bn.running_var"])
    whole = tv.merge(torch.ones(3, 1), "task")
    merged = one.merge(torch.ones(3, 1), "task")
    assert list(merged) == ["scale", "bn.running_var"] and all(torch.equal(merged[key], whole[key]) for key in merged)


@given(some_checkpoints((torch.float64,)), seeds, st.sampled_from(GRANULARITIES))
def test_coefficient_gradient_equals_autograd(pair, seed, granularity):
    tv = TaskVectors.from_state_dicts(*pair)
    rows = tv.rows(granularity)
    leaf = table(tv, granularity, seed).requires_grad_()
    generator = torch.Generator().manual_seed(seed)
    loss, grads = 0.0, {}
    for key, t in tv.vectors.items():
        theta = tv.pretrained[key] + torch.einsum("k,k...->...", leaf[:, rows.index[key]], t)
        weight = torch.randn(theta.shape, generator=generator, dtype=torch.float64)
        loss = loss + (weight * theta.sin()).sum()
        grads[key] = (weight * theta.cos()).detach()
    torch.testing.assert_close(tv.coefficient_gradient(grads, granularity), torch.autograd.grad(loss, leaf)[0])


def test_unused_tensors_have_zero_gradient():
    tv = TaskVectors.from_state_dicts(*checkpoints(0, 2, torch.float32))
    grads = {key: torch.ones_like(t[0]) for key, t in tv.vectors.items()}
    grads["scale"] = None
    gradient = tv.coefficient_gradient(grads, "tensor")
    column = tv.rows("tensor").index["scale"]
    assert torch.equal(gradient[:, column], torch.zeros(2)) and bool((gradient != 0).sum() == 6)
    assert torch.equal(tv.coefficient_gradient(dict.fromkeys(grads), "tensor"), torch.zeros(2, 4))
    del grads["scale"]
    with pytest.raises(ValueError, match="no gradient for .*scale"):
        tv.coefficient_gradient(grads, "tensor")


def test_mixed_precision_checkpoint():
    pretrained, experts = checkpoints(0, 2, torch.float32)
    for state in (pretrained, *experts.values()):
        state["scale"] = state["scale"].double()
    tv = TaskVectors.from_state_dicts(pretrained, experts)
    assert tv.merge(torch.ones(2, 4), "tensor")["scale"].dtype == torch.float64
    assert tv.coefficient_gradient({k: t[0] for k, t in tv.vectors.items()}, "tensor").shape == (2, 4)


def test_errors_name_what_is_wrong():
    pretrained, experts = checkpoints(0, 2, torch.float32)
    with pytest.raises(CheckpointError, match="given twice: task_0"):
        TaskVectors.from_state_dicts(pretrained, [("task_0", experts["task_0"]), ("task_0", experts["task_1"])])
    with pytest.raises(CheckpointError, match="no experts"):
        TaskVectors.from_state_dicts(pretrained, [])
    tv = TaskVectors.from_state_dicts(pretrained, experts.items())
    with pytest.raises(ValueError, match=r"must be a tensor \[2, 4\].*got \[4, 2\]"):
        tv.merge(torch.zeros(4, 2), "tensor")
    with pytest.raises(ValueError, match="got list"):
        tv.merge([[0.3], [0.3]], "task")
    with pytest.raises(ValueError, match="NaN"):
        tv.merge(torch.full((2, 1), float("nan")), "task")
    with pytest.raises(ValueError, match="granularity 'layer' is unknown"):
        tv.rows("layer")
    with pytest.raises(ValueError, match="no task vector for 'zebra'; known: task_0, task_1"):
        tv.subset(["zebra"])
    with pytest.raises(ValueError, match="named twice"):
        tv.subset(["task_0", "task_0"])
    with pytest.raises(ValueError, match="differ in their names.*scale"):
        tv.replace({key: t for key, t in tv.vectors.items() if key != "scale"})
    with pytest.raises(ValueError, match=r"'scale' has shape \[2, 1\], expected \[2\]"):
        tv.replace({**tv.vectors, "scale": torch.zeros(2, 1)})
    with pytest.raises(ValueError, match="no transformer blocks"):
        TaskVectors.from_state_dicts({"w": torch.ones(2)}, {"a": {"w": torch.ones(2)}}).rows("block")


def test_subset_keeps_the_order_given(task_vectors):
    part = task_vectors.subset(["gamma", "alpha"])
    assert part.tasks == ("gamma", "alpha")
    for key, t in part.vectors.items():
        assert torch.equal(t, task_vectors.vectors[key][[2, 0]])


def names_of(names):
    state = {name: torch.zeros(1) for name in names}
    return TaskVectors.from_state_dicts(state, {"a": state}).rows("block")


OPEN_CLIP = ["class_embedding", "positional_embedding", "proj", "conv1.weight", "ln_pre.bias",
             "transformer.resblocks.0.ln_1.weight", "transformer.resblocks.10.mlp.c_fc.bias",
             "ln_post.weight"]  # fmt: skip
HUGGING_FACE = ["embeddings.class_embedding", "embeddings.position_embedding.weight", "pre_layrnorm.weight",
                "encoder.layers.0.self_attn.q_proj.weight", "encoder.layers.11.mlp.fc1.bias",
                "post_layernorm.weight"]  # fmt: skip
TIMM = ["cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "blocks.2.ls1.gamma",
        "norm.weight", "head.weight"]  # fmt: skip


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (OPEN_CLIP, ["embeddings"] * 2 + ["head"] + ["embeddings"] * 2 + ["block_0", "block_10", "head"]),
        (HUGGING_FACE, ["embeddings"] * 3 + ["block_0", "block_11", "head"]),
        ([f"vision_model.{n}" for n in HUGGING_FACE], ["embeddings"] * 3 + ["block_0", "block_11", "head"]),
        (TIMM, ["embeddings"] * 3 + ["block_0", "block_2", "head", "head"]),
        (
            ["logit_scale", "transformer.resblocks.0.ln_1.bias", *(f"visual.{n}" for n in OPEN_CLIP[5:])],
            ["text", "text", "block_0", "block_10", "head"],
        ),
    ],
)
def test_block_rows_of_open_clip_hugging_face_and_timm(names, expected):
    rows = names_of(names)
    assert [rows.names[rows.index[name]] for name in names] == expected
    known = ["embeddings", "block_0", "block_2", "block_10", "block_11", "head", "text"]
    assert list(rows.names) == [name for name in known if name in expected]


def test_module_rows_join_weight_and_bias(task_vectors):
    rows = task_vectors.rows("module")
    assert rows.index["ln_pre.weight"] == rows.index["ln_pre.bias"] == rows.names.index("ln_pre")
    assert rows.names[rows.index["proj"]] == "proj"
    assert set(rows.index) == set(task_vectors.vectors) and "position_ids" not in rows.index


@pytest.mark.slow
def test_golden_counts_of_vit_b_32():
    """152 tensors and 87,849,216 parameters; embeddings, 12 blocks and head make 14 rows."""
    from adamerging_lib.runtime.compat import import_open_clip

    vision = import_open_clip().transformer.VisionTransformer
    with torch.device("meta"):
        encoder = vision(224, 32, width=768, layers=12, heads=12, mlp_ratio=4, output_dim=512)
    state = {key: torch.zeros(t.shape) for key, t in encoder.state_dict().items()}
    tv = TaskVectors.from_state_dicts(state, {"a": state})
    assert sum(t.numel() for t in tv.vectors.values()) == 87_849_216
    # Modules: four bare parameters and projections, conv1, ln_pre, ln_post, and six per block.
    assert {g: len(tv.rows(g).names) for g in GRANULARITIES} == {"task": 1, "block": 14, "module": 78, "tensor": 152}


@pytest.mark.parametrize(
    "names, groups",
    [
        (
            ["model.embed_tokens.weight", "model.layers.1.mlp.up_proj.weight", "lm_head.weight"],
            ["embeddings", "block_1", "head"],
        ),
        (
            ["transformer.wte.weight", "transformer.h.0.attn.c_attn.weight", "transformer.ln_f.weight"],
            ["embeddings", "block_0", "head"],
        ),
        (
            ["bert.embeddings.word_embeddings.weight", "bert.encoder.layer.3.output.dense.weight"],
            ["embeddings", "block_3"],
        ),
    ],
)
def test_language_models_have_blocks_too(names, groups):
    assert list(block_rows(names).values()) == groups
