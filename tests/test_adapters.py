"""Adapters as experts: θ0 + s·B A as peft merges it, for every feature of LoRA; what is not a plain LoRA is refused."""

from __future__ import annotations

import json
import math
import re
import warnings

import pytest
import torch
from adapted import Net, adapt, made, peft, quiet, rewrite, train
from hypothesis import given, settings
from hypothesis import strategies as hs
from short import SHORT
from strategies import assert_equal

import adamerging_lib as am
from adamerging_lib import state as st
from adamerging_lib.adapters.config import LoraSettings
from adamerging_lib.adapters.low_rank import cut, cut_matrix, stacked
from adamerging_lib.adapters.names import adapter_kinds, refusal
from adamerging_lib.adapters.source import describe, is_adapter
from adamerging_lib.cli import main
from adamerging_lib.files.merge import merge_files
from adamerging_lib.methods import registry
from adamerging_lib.state import CheckpointError

CASES = {
    "plain": ("bert", {"target_modules": ["query", "value"]}),
    "rslora, embedding, head": (
        "bert",
        {"target_modules": ["query", "word_embeddings"], "task_type": "SEQ_CLS", "use_rslora": True},
    ),
    "patterns": (
        "bert",
        {
            "target_modules": "all-linear",
            "rank_pattern": {"layer.0.attention.self.query": 4, "dense": 3},
            "alpha_pattern": {r".*layer\.1.*": 7, "query": 5},
        },
    ),
    "one layer, all biases": ("bert", {"target_modules": ["query"], "layers_to_transform": [1], "bias": "all"}),
    "biases of LoRA": ("bert", {"target_modules": ["query"], "bias": "lora_only", "lora_bias": True}),
    "bases that are not changed": ("bert", {"target_modules": ["query"], "init_lora_weights": "gaussian"}),
    "orthogonal": ("bert", {"target_modules": ["query"], "init_lora_weights": "orthogonal"}),
    "Conv1D": ("gpt2", {"target_modules": ["c_attn"], "fan_in_fan_out": True}),
    "Conv1D and Linear": ("gpt2", {"target_modules": ["c_attn", "c_proj", "c_fc", "score"], "fan_in_fan_out": True}),
    "square Conv1D": ("gpt2", {"target_modules": r".*h\.0\.attn\.c_proj"}),
    "embeddings of GPT-2": ("gpt2", {"target_modules": ["wte", "wpe", "c_fc"], "modules_to_save": ["score"]}),
    "T5": ("t5", {"target_modules": ["q", "v", "wi"]}),
    "tied embedding": ("t5", {"target_modules": ["q", "shared"]}),
    "ViT": ("vit", {"target_modules": ["projection", "dense"], "modules_to_save": ["classifier"]}),
    "excluded": ("vit", {"target_modules": "all-linear", "exclude_modules": ["dense"]}),
    "llama": ("llama", {"target_modules": ["q_proj", "k_proj", "down_proj"], "layers_to_transform": [0, 2]}),
    "tied head": ("llama", {"target_modules": ["embed_tokens", "q_proj"], "alpha_pattern": {"embed_tokens": 9}}),
    "modules to save": ("llama", {"target_modules": ["q_proj"], "modules_to_save": ["lm_head", "norm"]}),
    "convolutions": (
        "net",
        {"target_modules": ["emb", "attn", "fc", "c1", "c1x1", "c2"], "modules_to_save": ["head"]},
    ),
    "attention": ("net", {"target_modules": ["c2", "attn"], "bias": "all", "rank_pattern": {"attn": 3}}),
    "biases of attention": ("net", {"target_modules": ["attn"], "lora_bias": True}),
    "biases of convolutions": ("net", {"target_modules": ["c1", "c2", "c3", "fc"], "lora_bias": True}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_base_with_an_adapter_is_what_peft_merges(case, tmp_path):
    name, config = CASES[case]
    one = adapt(made(name), tmp_path, **config)
    expert = am.load_adapter(one.folder, one.base)
    assert list(expert) == list(expert.base) and expert.warnings == []
    for key, tensor in expert.items():
        torch.testing.assert_close(tensor, one.merged[key], atol=1e-6, rtol=0)
        assert tensor.dtype == expert.layout[key].dtype and tensor.shape == expert.layout[key].shape
    changed = {key for key in expert if not torch.equal(expert[key], expert.base[key])}
    assert changed and changed <= expert.changes.keys()


def test_in_files_of_torch_save(tmp_path):
    one = adapt(made("bert"), tmp_path, target_modules=["query"])
    before = dict(am.load_adapter(one.folder, one.base))
    tensors = st.load(one.folder / "adapter_model.safetensors")
    (one.folder / "adapter_model.safetensors").unlink()
    torch.save(tensors, one.folder / "adapter_model.bin")
    assert_equal(dict(am.load_adapter(one.folder, one.base)), before)


def test_a_convolution_whose_kernel_is_1_by_1_by_3(tmp_path):
    """peft itself fails to merge it: compared with what its own forward pass adds."""
    torch.manual_seed(0)
    model = Net()
    model.c3 = torch.nn.Conv3d(3, 4, (1, 1, 3))
    st.save(tmp_path / "base.safetensors", model.state_dict())
    tuned = quiet(peft.get_peft_model, model, peft.LoraConfig(r=2, lora_alpha=3, target_modules=["c3"]))
    train(tuned)
    quiet(tuned.save_pretrained, tmp_path / "adapter")
    expert = am.load_adapter(tmp_path / "adapter", tmp_path / "base.safetensors")
    x = torch.randn(1, 3, 2, 2, 4)
    ours = torch.nn.functional.conv3d(x, expert["c3.weight"], expert["c3.bias"])
    torch.testing.assert_close(ours, tuned.base_model.model.c3(x))


# What a hand-made adapter consists of, and a base for it.

BASE = {
    "layers.0.q.weight": (6, 6), "layers.0.q.bias": (6,), "layers.1.q.weight": (6, 6), "layers.1.q.bias": (6,),
    "layers.0.up.weight": (9, 6), "layers.1.up.weight": (9, 6), "embed.weight": (5, 6), "norm.weight": (6,),
    "conv.weight": (4, 3, 2, 2), "grouped.weight": (4, 2, 2, 2),
}  # fmt: skip


def base(dtype=torch.float32):
    generator = torch.Generator().manual_seed(7)
    return {key: torch.randn(shape, generator=generator).to(dtype) for key, shape in BASE.items()}


def factors(module, out, into, r=2, seed=0, prefix="base_model.model.", scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return {
        f"{prefix}{module}.lora_A.weight": scale * torch.randn(r, into, generator=generator),
        f"{prefix}{module}.lora_B.weight": torch.randn(out, r, generator=generator),
    }


def written(folder, tensors, **config):
    """A folder of an adapter; config None for a file without one."""
    folder.mkdir(parents=True, exist_ok=True)
    st.save(folder / "adapter_model.safetensors", tensors)
    if config is not None and config.pop("without", None) is None:
        content = {"peft_type": "LORA", "r": 2, "lora_alpha": 4} | config
        (folder / "adapter_config.json").write_text(json.dumps(content))
    return folder


@settings(max_examples=40, deadline=None)
@given(
    r=hs.integers(1, 7),
    alpha=hs.floats(-30, 30).filter(lambda a: abs(a) > 1e-3),
    rslora=hs.booleans(),
    dtype=hs.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64]),
    seed=hs.integers(0, 99),
)
def test_the_task_vector_is_the_product_itself(tmp_path_factory, r, alpha, rslora, dtype, seed):
    folder = tmp_path_factory.mktemp("a")
    tensors = factors("layers.0.up", 9, 6, r=r, seed=seed)
    written(folder, tensors, r=r, lora_alpha=alpha, use_rslora=rslora)
    theta = base(dtype)
    expert = am.load_adapter(folder, theta)
    a, b = (t.double() for t in tensors.values())
    delta = alpha / (math.sqrt(r) if rslora else r) * b @ a
    tv = am.TaskVectors.from_state_dicts(theta, {"x": expert})
    # Not (θ0 + ΔW) − θ0: in half precision, little of ΔW would be left.
    torch.testing.assert_close(tv.vectors["layers.0.up.weight"][0].double(), delta, rtol=1e-5, atol=1e-5)
    assert not any(t.any() for key, t in tv.vectors.items() if key != "layers.0.up.weight")
    assert torch.equal(
        expert["layers.0.up.weight"],
        (theta["layers.0.up.weight"].to(tv.vectors["norm.weight"].dtype) + tv.vectors["layers.0.up.weight"][0]).to(
            dtype
        ),
    )


WORDS = [
    "q",
    "v",
    "layers.0.q",
    "layers.1.q",
    r"layers\.[01]\.v",
    ".*0.*",
    "^layers.1.q",
    "self",
    "x.layers.0.q",
    "lay.*",
]


@given(
    patterns=hs.dictionaries(hs.sampled_from(WORDS), hs.integers(1, 9), max_size=4),
    module=hs.sampled_from(
        ["layers.0.q", "layers.1.q", "x.layers.0.q", "q", "layers.10.v", "selfq", "layers.1.self.v"]
    ),
)
def test_patterns_mean_what_peft_means(patterns, module):
    from peft.utils.other import get_pattern_key

    expected = patterns.get(get_pattern_key(patterns.keys(), module), 8)
    assert LoraSettings(8, 8, rank_pattern=patterns).rank_of(module) == expected
    assert LoraSettings(8, 8.0, alpha_pattern=patterns).scale_of(module) == expected / 8


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("layers.0.up", "layers.0.up"),
        ("bert.layers.0.up", "layers.0.up"),
        ("model.bert.layers.0.up", "layers.0.up"),
        ("layers.0.up", "bert.layers.0.up"),
        ("layers.0.up", "model.language_model.layers.0.up"),
    ],
)
def test_prefixes_that_only_one_of_the_two_has(theirs, ours, tmp_path):
    folder = written(tmp_path / "a", factors(theirs, 9, 6))
    theta = {f"{ours}.weight": torch.zeros(9, 6), "other.bias": torch.zeros(3)}
    a, b = factors(theirs, 9, 6).values()
    torch.testing.assert_close(am.load_adapter(folder, theta)[f"{ours}.weight"], 2 * b @ a)


@pytest.mark.parametrize(
    "wrapper", ["_orig_mod.base_model.model.", "module.base_model.model._orig_mod.", "", "module."]
)
def test_wrappers_of_training_are_no_part_of_a_name(wrapper, tmp_path):
    tensors = factors("layers.0.up", 9, 6, prefix=wrapper)
    a, b = tensors.values()
    theta = base()
    expert = am.load_adapter(written(tmp_path / "a", tensors), theta)
    torch.testing.assert_close(expert["layers.0.up.weight"], theta["layers.0.up.weight"] + 2 * b @ a)


def test_the_adapters_own_name_within_names(tmp_path):
    """As in the state dict of a peft model, which training saved."""
    tensors = {
        key.replace(".weight", ".mine.weight"): t for key, t in factors("layers.0.up", 9, 6).items()
    } | {
        "base_model.model.embed.lora_embedding_A.mine": torch.ones(2, 5),
        "base_model.model.embed.lora_embedding_B.mine": torch.ones(6, 2),
        "base_model.model.norm.modules_to_save.mine.weight": torch.full((6,), 3.0),
        "base_model.model.norm.original_module.weight": torch.full((6,), 9.0),
    }  # fmt: skip
    theta = base()
    expert = am.load_adapter(written(tmp_path / "a", tensors), theta)
    a, b = factors("layers.0.up", 9, 6).values()
    torch.testing.assert_close(expert["layers.0.up.weight"], theta["layers.0.up.weight"] + 2 * b @ a)
    torch.testing.assert_close(expert["embed.weight"], theta["embed.weight"] + 4)
    assert torch.equal(expert["norm.weight"], torch.full((6,), 3.0)) and set(expert) == set(theta)


@pytest.mark.parametrize("alpha", [1.0, 8.0, None])
@pytest.mark.parametrize("style", ["kohya", "old diffusers", "diffusers"])
def test_formats_of_image_generators(style, alpha, tmp_path):
    a, b = factors("down.0.to_q", 9, 6).values()
    module, ends = {
        "kohya": ("lora_unet_down_0_to_q", ("lora_down.weight", "lora_up.weight")),
        "old diffusers": ("unet.down.0.to_q", ("lora.down.weight", "lora.up.weight")),
        "diffusers": ("unet.down.0.to_q", ("lora_A.weight", "lora_B.weight")),
    }[style]
    tensors = {f"{module}.{end}": t for end, t in zip(ends, (a, b), strict=True)}
    if alpha is not None:
        tensors[f"{module}.alpha"] = torch.tensor(alpha)
    st.save(tmp_path / "x.safetensors", tensors)
    theta = {"down.0.to_q.weight": torch.zeros(9, 6)}
    if style == "diffusers" and alpha is None:
        with pytest.raises(CheckpointError, match=r"nothing else tells the scale alpha/r of 'unet\.down\.0\.to_q'"):
            am.load_adapter(tmp_path / "x.safetensors", theta)
        return
    scale = 1 if alpha is None else alpha / 2
    torch.testing.assert_close(am.load_adapter(tmp_path / "x.safetensors", theta)["down.0.to_q.weight"], scale * b @ a)


def test_a_flattened_name_that_two_modules_have(tmp_path):
    a, b = factors("x", 9, 6).values()
    tensors = {"lora_unet_a_b_c.lora_down.weight": a, "lora_unet_a_b_c.lora_up.weight": b}
    st.save(tmp_path / "x.safetensors", tensors)
    with pytest.raises(CheckpointError, match="can be 'a.b_c' or 'a_b.c' of the base"):
        am.load_adapter(tmp_path / "x.safetensors", {"a.b_c.weight": b @ a, "a_b.c.weight": b @ a})
    with pytest.raises(CheckpointError, match="which the base does not have under any name"):
        am.load_adapter(tmp_path / "x.safetensors", {"z.weight": b @ a})


REFUSED = {
    "DoRA": {"use_dora": True},
    "QA-LoRA": {"use_qalora": True},
    "KaSA": {"kasa_config": {"beta": 1}},
    "aLoRA": {"alora_invocation_tokens": [1, 2]},
    "layers are repeated": {"layer_replication": [[0, 2], [1, 3]]},
    "target_parameters": {"target_parameters": ["experts.up"]},
    "trainable_token_indices": {"trainable_token_indices": [1]},
    "Megatron": {"megatron_config": {"a": 1}},
    "Arrow": {"arrow_config": {"top_k": 1}},
    "MonteCLoRA": {"monteclora_config": {"num_samples": 2}},
    "BD-LoRA": {"use_bdlora": {"a": 1}},
    "enable_lora": {"enable_lora": [True, False, True]},
    "PiSSA": {"init_lora_weights": "pissa_niter_4"},
    "OLoRA": {"init_lora_weights": "olora"},
    "CorDA": {"init_lora_weights": "corda"},
    "LoRA-GA": {"init_lora_weights": "lora_ga"},
    "LoftQ": {"init_lora_weights": "loftq"},
    "'use_novelty'": {"use_novelty": True},
    **{f"type {kind}": {"peft_type": kind} for kind in
       ("ADALORA", "LOHA", "LOKR", "VERA", "IA3", "OFT", "BOFT", "PROMPT_TUNING", "PREFIX_TUNING", "XLORA", "VBLORA")},
    "names no peft_type": {"peft_type": None},
}  # fmt: skip


NEVER = {"QA-LoRA", "aLoRA", "Arrow", "type PROMPT_TUNING", "type PREFIX_TUNING", "type XLORA"}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_plain_lora_is_refused_by_name(name, tmp_path):
    folder = written(tmp_path / "a", factors("layers.0.up", 9, 6), **REFUSED[name])
    with pytest.raises(CheckpointError) as told:
        am.load_adapter(folder, base())
    mend = "leave this expert out" if name in NEVER else "merge_and_unload"
    assert name in str(told.value) and mend in str(told.value) and str(folder) in str(told.value)
    assert describe(folder).problem == str(told.value)


@pytest.mark.parametrize(
    ("end", "kind"),
    [
        ("lora_magnitude_vector", "DoRA"),
        ("dora_scale", "DoRA"),
        ("hada_w1_a", "LoHa"),
        ("lokr_w1", "LoKr"),
        ("lora_E", "AdaLoRA"),
        ("vera_lambda_b", "VeRA"),
        ("ia3_l", "IA3"),
        ("oft_r", "OFT"),
        ("lora_mid.weight", "LoCon"),
    ],
)
def test_variants_are_known_by_their_tensors_too(end, kind, tmp_path):
    tensors = factors("layers.0.up", 9, 6) | {f"base_model.model.layers.0.up.{end}": torch.ones(9)}
    with pytest.raises(CheckpointError, match=rf"an adapter of kind \S*{kind}"):
        am.load_adapter(written(tmp_path / "a", tensors), base())


def name(part):
    return f"base_model.model.layers.0.up.{part}.weight"


ODD = {
    "without the other factor": ({name("lora_A"): torch.ones(2, 6)}, {}),
    "has rank 3, and adapter_config.json says 2": (factors("layers.0.up", 9, 6, r=3), {}),
    "make no change of 'layers.0.up.weight'": (factors("layers.0.up", 8, 6), {}),
    "before its factors were quantised": (
        {name("lora_A"): torch.ones(2, 6).char(), name("lora_B"): torch.ones(9, 2).char()}, {},
    ),
    "are not two factors": ({name("lora_A"): torch.ones(0), name("lora_B"): torch.ones(0)}, {}),
    "which the base does not have": (factors("layers.7.up", 9, 6), {}),
    r"r 0 should be": (factors("layers.0.up", 9, 6), {"r": 0}),
    r"r True should be": (factors("layers.0.up", 9, 6), {"r": True}),
    "lora_alpha nan should be": (factors("layers.0.up", 9, 6), {"lora_alpha": math.nan}),
    "use_rslora 'false' should be true or false": (factors("layers.0.up", 9, 6), {"use_rslora": "false"}),
    "has two factors for one place": (
        factors("layers.0.up", 9, 6) | {name("lora_A.default"): torch.ones(2, 6)},
        {},
    ),
    "lora_alpha '4' should be": (factors("layers.0.up", 9, 6), {"lora_alpha": "4"}),
    r"'\(' of rank_pattern is not a regular": (factors("layers.0.up", 9, 6), {"rank_pattern": {"(": 3}}),
    "holds no tensors|holds 2 adapters": (
        factors("layers.0.up", 9, 6) and {
            name("lora_A.a"): torch.ones(2, 6), name("lora_B.a"): torch.ones(9, 2),
            "base_model.model.layers.1.up.lora_A.b.weight": torch.ones(2, 6),
            "base_model.model.layers.1.up.lora_B.b.weight": torch.ones(9, 2),
        },
        {},
    ),
    "a convolution in groups": (
        {"grouped.lora_A.weight": torch.ones(2, 4, 2, 2), "grouped.lora_B.weight": torch.ones(4, 1, 1, 1)}, {},
    ),
    "to a bias of the base that does not exist": (
        factors("layers.0.up", 9, 6) | {"base_model.model.layers.0.up.lora_B.bias": torch.ones(9)}, {},
    ),
    "how square 'layers.0.q.weight' is stored cannot be told": (factors("layers.0.q", 6, 6), {"fan_in_fan_out": True}),
}  # fmt: skip


@pytest.mark.parametrize("said", ODD)
def test_odd_adapters_are_refused_with_what_is_odd(said, tmp_path):
    tensors, config = ODD[said]
    theta = base() | {"dense.weight": torch.ones(9, 6), "dense.bias": torch.ones(9)}  # a Linear, by its bias
    with pytest.raises(CheckpointError, match=said):
        am.load_adapter(written(tmp_path / "a", tensors, **config), theta)


def test_a_base_of_codes_is_refused(tmp_path):
    folder = written(tmp_path / "a", factors("layers.0.up", 9, 6))
    for key, tensor in (("weight", torch.ones(9, 6, dtype=torch.int8)), ("qweight", torch.ones(2, 9).int())):
        with pytest.raises(CheckpointError, match="quantised"):
            am.load_adapter(folder, {f"layers.0.up.{key}": tensor})


def test_two_places_that_both_fit(tmp_path):
    folder = written(tmp_path / "a", factors("layers.0.up", 9, 6))
    theta = {f"{tower}.layers.0.up.weight": torch.ones(9, 6) for tower in ("text", "vision")}
    with pytest.raises(CheckpointError, match="'text.layers.0.up' or 'vision.layers.0.up'"):
        am.load_adapter(folder, theta)


def test_an_embedding_that_is_stored_twice_is_changed_twice(tmp_path):
    """As peft's merge changes the one tensor that both names are."""
    one = adapt(made("llama"), tmp_path, whole=True, target_modules=["embed_tokens", "q_proj"])
    theta = st.load(one.base) | {"lm_head.weight": st.load(one.base)["model.embed_tokens.weight"].clone()}
    with pytest.warns(UserWarning, match=r"to which 'lm_head.weight' is equal in the base \(tied\)"):
        expert = am.load_adapter(one.folder, theta)
    assert torch.equal(expert["lm_head.weight"], expert["model.embed_tokens.weight"])
    assert not torch.equal(expert["lm_head.weight"], theta["lm_head.weight"])


def test_a_head_that_the_base_lacks_is_shown_as_any_experts_would_be(tmp_path):
    one = adapt(made("bert"), tmp_path, target_modules=["query"], modules_to_save=["classifier"])
    theta = {key.removeprefix("bert."): t for key, t in st.load(one.base).items() if key.startswith("bert.")}
    expert = am.load_adapter(one.folder, theta)
    assert set(expert) - set(theta) == {"classifier.weight", "classifier.bias"}
    assert torch.equal(expert["classifier.weight"], one.merged["classifier.weight"])
    with pytest.raises(CheckpointError, match="classifier"):
        am.TaskVectors.from_state_dicts(theta, {"a": expert})


# Merging.


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """A base, and adapters of other ranks and modules, one with biases, one with a head."""
    folder = tmp_path_factory.mktemp("three")
    settings = [
        {"target_modules": ["query", "value"]},
        {"target_modules": ["query", "dense"], "r": 4, "bias": "all", "use_rslora": True},
        {"target_modules": ["key", "word_embeddings"], "modules_to_save": ["classifier"], "lora_alpha": 8},
    ]
    made_ones = [adapt(made("bert"), folder, seed=seed, **one) for seed, one in enumerate(settings)]
    return made_ones[0].base, {f"t{n}": one for n, one in enumerate(made_ones)}


QUICK = {**SHORT, "doge_ta": {"iterations": 3}}
FROM_FILES = [id for id in am.methods().index if registry.find(id).takes == "task_vectors"]


@pytest.mark.parametrize("method", FROM_FILES)
def test_every_method_merges_adapters_as_it_merges_models(method, three, tmp_path):
    theta, ones = three
    out = "x" if registry.find(method).task_id else "x.safetensors"
    adapters, hyper = {task: one.folder for task, one in ones.items()}, QUICK.get(method, {})
    report = merge_files(method, theta, adapters, tmp_path / out, progress=False, **hyper)
    loaded = st.load(theta)
    experts = {task: am.load_adapter(folder, loaded) for task, folder in adapters.items()}
    here = am.merge(method, am.TaskVectors.from_state_dicts(loaded, experts), **hyper)
    # Models in float64, whose differences are ΔW: those in float32 are off by θ0's rounding.
    wide = {key: t.double() for key, t in loaded.items()}
    models = {task: {key: wide[key] + _added(expert, key) for key in wide} for task, expert in experts.items()}
    expected = am.merge(method, am.TaskVectors.from_state_dicts(wide, models), **hyper)
    for task, path in report.plan.outputs.items():
        merged = st.load(path)
        assert_equal(merged, {key: here.state_dict(task)[key] for key in merged})
        for key, tensor in expected.state_dict(task).items():
            torch.testing.assert_close(merged[key].double(), tensor, atol=2e-4, rtol=1e-3)


def _added(expert, key):
    return 0 if (t := expert.difference(key)) is None else t.double()


LINEAR = {
    "task_arithmetic": {"scaling": -0.7},
    "weight_averaging": {},
    "lines": {"alpha": 0.2, "beta": 0.6},
}


@pytest.mark.parametrize("method", LINEAR)
def test_a_linear_merge_is_one_adapter_which_peft_loads(method, three, tmp_path):
    theta, ones = three
    adapters = {task: one.folder for task, one in ones.items()}
    report = am.merge_to_adapter(method, theta, adapters, tmp_path / "out", **LINEAR[method])
    merge_files(method, theta, adapters, tmp_path / "m.safetensors", progress=False, **LINEAR[method])
    assert report.error == 0 and set(report.modules["kept"]) == {2, 4, 6}
    model = quiet(peft.PeftModel.from_pretrained, made("bert"), tmp_path / "out").eval()
    plain = made("bert")
    plain.load_state_dict(st.load(tmp_path / "m.safetensors"))
    words = torch.arange(8).reshape(2, 4)
    torch.testing.assert_close(model(words).logits, plain(words).logits, atol=1e-6, rtol=0)
    state = quiet(model.merge_and_unload).state_dict()
    for key, tensor in st.load(tmp_path / "m.safetensors").items():
        torch.testing.assert_close(state[key], tensor, atol=1e-6, rtol=0)


PAIRS = {
    "gpt2": [
        {"target_modules": ["c_attn", "c_proj"]},
        {"target_modules": ["c_fc", "wte", "score"], "r": 5, "fan_in_fan_out": True},
    ],
    "t5": [{"target_modules": ["q", "v"]}, {"target_modules": ["q", "wi", "shared"], "r": 5}],
    "llama": [
        {"target_modules": ["q_proj", "up_proj"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["norm", "lm_head"]},
    ],
    "net": [
        {"target_modules": ["emb", "attn", "fc", "c1", "c1x1", "c3"], "modules_to_save": ["head"]},
        {"target_modules": ["attn", "c2", "fc"], "bias": "lora_only", "lora_bias": True, "r": 3},
    ],
}


@pytest.mark.parametrize("name", PAIRS)
def test_adapters_of_all_kinds_of_modules_become_one(name, tmp_path):
    ones = [adapt(made(name), tmp_path, seed=seed, **config) for seed, config in enumerate(PAIRS[name])]
    adapters = {f"t{n}": one.folder for n, one in enumerate(ones)}
    am.merge_to_adapter("task_arithmetic", ones[0].base, adapters, tmp_path / "out", scaling=0.5)
    merge_files("task_arithmetic", ones[0].base, adapters, tmp_path / "m.safetensors", progress=False, scaling=0.5)
    state = quiet(quiet(peft.PeftModel.from_pretrained, made(name), tmp_path / "out").merge_and_unload).state_dict()
    for key, tensor in st.load(tmp_path / "m.safetensors").items():
        torch.testing.assert_close(state[key], tensor, atol=1e-6, rtol=0)
    # What it wrote is an adapter like any other.
    again = am.load_adapter(tmp_path / "out", ones[0].base)
    for key, tensor in st.load(tmp_path / "m.safetensors").items():
        torch.testing.assert_close(again[key], tensor, atol=1e-6, rtol=0)


@pytest.mark.parametrize("rank", [1, 3, 5, 50])
@pytest.mark.parametrize("method", ["task_arithmetic", "ties", "tsv_m"])
def test_an_adapter_cut_to_a_rank_is_the_nearest_one_and_says_how_near(method, rank, three, tmp_path):
    theta, ones = three
    adapters = {task: one.folder for task, one in ones.items()}
    report = am.merge_to_adapter(method, theta, adapters, tmp_path / "out", rank=rank)
    merge_files(method, theta, adapters, tmp_path / "m.safetensors", progress=False)
    loaded, cut = st.load(theta), am.load_adapter(tmp_path / "out", theta)
    lost = whole = 0.0
    for key, row in report.modules.iterrows():
        delta = (st.load(tmp_path / "m.safetensors")[key] - loaded[key]).double()
        s = torch.linalg.svdvals(delta)
        rest = (cut.difference(key).double() - delta).norm()
        torch.testing.assert_close(rest, s[rank:].norm(), atol=1e-5, rtol=1e-4)
        assert row["error"] == pytest.approx((rest / delta.norm()).item(), abs=1e-4) and row["kept"] <= rank
        lost, whole = lost + rest**2, whole + delta.norm() ** 2
    assert report.error == pytest.approx(math.sqrt(lost / whole), abs=1e-4)


@settings(max_examples=60, deadline=None)
@given(
    shape=hs.tuples(hs.integers(1, 7), hs.integers(1, 9), hs.integers(1, 7)),
    rank=hs.integers(1, 10),
    seed=hs.integers(0, 99),
)
def test_a_product_is_cut_as_its_matrix_is(shape, rank, seed):
    m, r, n = shape
    generator = torch.Generator().manual_seed(seed)
    b, a = torch.randn(m, r, generator=generator), torch.randn(r, n, generator=generator)
    (left, right), s = cut((b, a), rank)
    u, t, vh = torch.linalg.svd(b.double() @ a.double(), full_matrices=False)
    expected = u[:, :rank] * t[:rank] @ vh[:rank]
    torch.testing.assert_close(left @ right, expected)
    torch.testing.assert_close(s.norm(), t.norm())
    assert left.shape == (m, min(rank, r)) and right.shape == (min(rank, r), n)
    (left, right), _ = cut_matrix(b @ a, rank)
    torch.testing.assert_close(left @ right, expected, atol=1e-5, rtol=1e-5)
    assert left.shape == (m, rank) and right.shape == (rank, n)


@given(ranks=hs.lists(hs.integers(1, 4), min_size=1, max_size=4), seed=hs.integers(0, 99))
def test_stacked_factors_are_the_sum(ranks, seed):
    generator = torch.Generator().manual_seed(seed)
    parts = [(torch.randn(5, r, generator=generator), torch.randn(r, 3, generator=generator)) for r in ranks]
    b, a = stacked(parts)
    torch.testing.assert_close(b @ a, sum(one @ other for one, other in parts))
    assert b.shape[1] == sum(ranks)


def test_coefficients_that_were_learned_make_an_adapter_too(three, tmp_path):
    theta, ones = three
    loaded = st.load(theta)
    experts = {task: am.load_adapter(one.folder, loaded) for task, one in ones.items()}
    tv = am.TaskVectors.from_state_dicts(loaded, experts)
    rows = tv.rows("tensor").names
    values = torch.randn(3, len(rows), generator=torch.Generator().manual_seed(0))
    coefficients = am.Coefficients(values, tv.tasks, rows, "tensor")
    am.save_adapter(tmp_path / "out", experts, coefficients)
    expected = am.merge_with(tv, coefficients).state
    for key, tensor in am.load_adapter(tmp_path / "out", loaded).items():
        torch.testing.assert_close(tensor, expected[key], atol=1e-6, rtol=0)


def test_what_each_task_keeps_can_be_left_out_of_the_adapter(three, tmp_path):
    theta, ones = three
    loaded = st.load(theta)
    experts = {task: am.load_adapter(one.folder, loaded) for task, one in ones.items()}
    everything = am.TaskVectors.from_state_dicts(loaded, experts).rows("tensor").names
    changed = [key for key in everything if any(key in expert.changes for expert in experts.values())]
    mine, rest = changed[0], [key for key in everything if key != changed[0]]
    coefficients = am.Coefficients(torch.ones(3, len(rest)), tuple(experts), rest, "tensor")
    with pytest.raises(ValueError, match=rf"given for {re.escape(mine)}.*\(drop=\)"):
        am.save_adapter(tmp_path / "out", experts, coefficients)
    am.save_adapter(tmp_path / "out", experts, coefficients, drop=[mine])
    assert mine not in am.load_adapter(tmp_path / "out", loaded).changes
    with pytest.raises(ValueError, match="no tensor's name fits 'head"):
        am.save_adapter(tmp_path / "out", experts, coefficients, drop=["head.*"])


# What it says.


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """A current folder with base.safetensors and an adapter in lora/."""
    monkeypatch.chdir(tmp_path)
    st.save("base.safetensors", base())
    written(tmp_path / "lora", factors("layers.0.up", 9, 6), base_model_name_or_path="org/tiny")
    return tmp_path


def run(capsys, *arguments):
    code = main([str(a) for a in arguments])
    streams = capsys.readouterr()
    return code, streams.out, streams.err


MERGE = ("merge", "--method", "task_arithmetic")


def test_the_command_merges_adapters(shop, capsys):
    more = written(shop / "more", factors("layers.1.up", 9, 6, seed=1))
    given_ = ("--pretrained", "base.safetensors", "--expert", "a=lora", "--expert", f"b={more}", "--set", "scaling=1")
    assert run(capsys, *MERGE, *given_, "--out", "m.safetensors")[0] == 0
    a, b = factors("layers.0.up", 9, 6).values()
    merged = st.load("m.safetensors")["layers.0.up.weight"]
    torch.testing.assert_close(merged, base()["layers.0.up.weight"] + 2 * b @ a)
    code, out, _ = run(capsys, *MERGE, *given_, "--out", "one", "--adapter")
    assert code == 0 and "2 tensors with factors, rank 2; 0 whole; error 0.00%" in out
    code, out, _ = run(capsys, *MERGE, *given_, "--out", "one", "--adapter", "--rank", "1")
    assert code == 2
    code, out, _ = run(capsys, *MERGE, *given_, "--out", "one", "--adapter", "--rank", "1", "--force")
    assert code == 0 and "layers.0.up.weight" in out and "rank 1" in out


REFUSALS = [
    ("--pretrained lora --expert a=lora --out m.safetensors", ["lora is an adapter", "--expert NAME=lora"]),
    ("--pretrained base.safetensors --expert a=lora --out m --rank 3", ["--adapter"]),
    ("--pretrained base.safetensors --expert a=lora --out m.safetensors --adapter", ["folder"]),
    ("--pretrained base.safetensors --expert a=model.safetensors --out m --adapter", ["whole model"]),
]


@pytest.mark.parametrize(("arguments", "words"), REFUSALS)
def test_what_the_command_refuses(arguments, words, shop, capsys):
    st.save("model.safetensors", {key: t + 1 for key, t in base().items()})
    code, _, err = run(capsys, *MERGE, *arguments.split())
    assert code == 2 and all(word in err for word in words)


def test_ties_needs_a_rank_to_be_an_adapter(shop, capsys):
    given_ = ("--pretrained", "base.safetensors", "--expert", "a=lora", "--out", "m", "--adapter")
    code, _, err = run(capsys, "merge", "--method", "ties", *given_)
    assert code == 2 and "--rank R" in err
    code, _, err = run(capsys, "merge", "--method", "emr", *given_)
    assert code == 2 and "one model per task" in err


def test_inspect_says_what_an_adapter_is(shop, capsys):
    code, out, _ = run(capsys, "inspect", "lora")
    assert code == 0 and "an adapter, not a model: LoRA" in out and "org/tiny" in out
    assert "rank 2, scale 2: layers.0.up" in out and "--expert NAME=lora" in out
    rewrite(shop / "lora", use_dora=True)
    assert "DoRA" in run(capsys, "inspect", "lora/adapter_model.safetensors")[1]


def test_convert_makes_a_model_of_an_adapter_and_its_base(shop, capsys):
    code, _, err = run(capsys, "convert", "lora", "m.safetensors")
    assert code == 2 and "an adapter, not a model" in err and "--base" in err
    assert run(capsys, "convert", "lora", "m.safetensors", "--base", "base.safetensors")[0] == 0
    assert_equal(st.load("m.safetensors"), dict(am.load_adapter("lora", "base.safetensors")))
    assert run(capsys, "convert", "lora", "base.safetensors", "--base", "base.safetensors", "--force")[0] == 2
    assert run(capsys, "convert", "lora", "x.safetensors", "--kind", "state_dict")[0] == 2


def test_a_head_of_its_own_is_left_out_where_it_is_dropped(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one = adapt(made("bert"), tmp_path, seed=0, target_modules=["query"], modules_to_save=["classifier"])
    two = adapt(made("bert"), tmp_path, seed=1, target_modules=["value"])
    theta = {key.removeprefix("bert."): t for key, t in st.load(one.base).items() if key.startswith("bert.")}
    st.save("bare.safetensors", theta)
    given_ = ("--pretrained", "bare.safetensors", "--expert", f"a={one.folder}", "--expert", f"b={two.folder}")
    code, _, err = run(capsys, *MERGE, *given_, "--out", "m.safetensors")
    assert code == 2 and "--drop 'classifier.*'" in err
    drop = ("--drop", "classifier.*", "--set", "scaling=1")
    assert run(capsys, *MERGE, *given_, "--out", "m.safetensors", *drop)[0] == 0
    merged = st.load("m.safetensors")
    for which, part in ((one, "query"), (two, "value")):
        key = f"encoder.layer.1.attention.self.{part}.weight"
        torch.testing.assert_close(merged[key], which.merged[f"bert.{key}"], atol=1e-6, rtol=0)
    assert run(capsys, *MERGE, *given_, "--out", "one", "--adapter", *drop)[0] == 0
    assert_close_states(am.load_adapter("one", theta), merged)
    # Under the names of the models that the adapters were trained in.
    state = quiet(quiet(peft.PeftModel.from_pretrained, made("bert"), "one").merge_and_unload).state_dict()
    assert_close_states({key: state[f"bert.{key}"] for key in merged}, merged)


def assert_close_states(found, expected):
    assert set(found) == set(expected)
    for key, tensor in expected.items():
        torch.testing.assert_close(found[key], tensor, atol=1e-6, rtol=0)


def test_names_of_bases_that_contradict_each_other_are_warnings(shop, capsys):
    written(shop / "other", factors("layers.1.up", 9, 6), base_model_name_or_path="org/large")
    (shop / "config.json").write_text('{"_name_or_path": "org/huge"}')
    given_ = ("--pretrained", "base.safetensors", "--expert", "a=lora", "--expert", "b=other")
    code, out, err = run(capsys, *MERGE, *given_, "--out", "m.safetensors")
    assert code == 0 and "warning: experts 'a' and 'b' name two bases, org/tiny and org/large" in err
    assert "pretrained calls itself org/huge" in err and "expert 'a' is a LoRA adapter, rank 2: it changes 1 of" in out


def test_factors_are_never_weights():
    tensors = factors("layers.0.up", 9, 6)
    for theta, experts in ((tensors, {"a": tensors}), (base(), {"a": tensors})):
        with pytest.raises(CheckpointError, match=r"is an adapter \(LoRA.*am\.load_adapter"):
            am.TaskVectors.from_state_dicts(theta, experts)
    unmerged = base() | tensors | {"base_model.model.layers.0.up.base_layer.weight": torch.ones(9, 6)}
    with pytest.raises(CheckpointError, match=r"not merged into them: call merge_and_unload\(\)"):
        am.TaskVectors.from_state_dicts(unmerged, {"a": unmerged})


@pytest.mark.parametrize(
    "key",
    ["base_layer.0.weight", "attention.w_lora.lora.0.weight", "q_a_proj.weight", "colora_A.weight", "ln_f.alpha",
     "lora.weight", "flora_B.x", "self_attn.kv_a_proj_with_mqa.weight"],
)  # fmt: skip
def test_names_of_models_that_only_look_like_factors(key):
    assert adapter_kinds([key]) == () and refusal([key], "it") is None


def test_an_adapter_is_known_by_what_it_lies_beside(shop):
    assert is_adapter("lora") and is_adapter("lora/adapter_config.json") and not is_adapter("base.safetensors")
    (shop / "other.safetensors").write_bytes((shop / "lora" / "adapter_model.safetensors").read_bytes())
    assert is_adapter("other.safetensors") and not is_adapter("nowhere") and not is_adapter(".")


def test_a_folder_with_a_model_and_an_adapter_is_no_expert(shop):
    st.save(shop / "lora" / "model.safetensors", base())
    with pytest.raises(CheckpointError, match="holds a whole model and an adapter: name the one"):
        merge_files("ties", "base.safetensors", {"a": "lora"}, "m.safetensors", progress=False)
    merge_files("ties", "base.safetensors", {"a": "lora/adapter_model.safetensors"}, "m.safetensors", progress=False)


def test_a_folder_of_several_adapters_names_one(shop):
    (shop / "many").mkdir()
    (shop / "lora").rename(shop / "many" / "second")
    (shop / "many" / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"give one of its adapters, such as many/second"):
        merge_files("ties", "base.safetensors", {"a": "many"}, "m.safetensors")


def test_two_adapters_of_equal_factors_and_other_scales_are_two(shop):
    written(shop / "twice", factors("layers.0.up", 9, 6), lora_alpha=8)
    report = merge_files("task_arithmetic", "base.safetensors", {"a": "lora", "b": "twice"}, "m.safetensors")
    assert report.experts["norm"]["b"] == pytest.approx(2 * report.experts["norm"]["a"])
    written(shop / "copy", factors("layers.0.up", 9, 6), base_model_name_or_path="org/tiny")
    with pytest.raises(ValueError, match="have the same content"):
        merge_files("task_arithmetic", "base.safetensors", {"a": "lora", "b": "copy"}, "n.safetensors")


def test_nan_in_a_factor_is_found(shop):
    tensors = factors("layers.0.up", 9, 6)
    tensors["base_model.model.layers.0.up.lora_A.weight"][0, 0] = math.nan
    written(shop / "broken", tensors)
    with pytest.raises(ValueError, match=r"'layers\.0\.up\.weight' of 'a'.* holds NaN"):
        merge_files("ties", "base.safetensors", {"a": "broken"}, "m.safetensors")
    with pytest.raises(ValueError, match="NaN"):
        am.merge_to_adapter("task_arithmetic", "base.safetensors", {"a": "broken"}, "m")


def test_loading_executes_nothing(shop):
    class Bomb:
        def __reduce__(self):
            return (open, ("boom", "w"))

    folder = shop / "bomb"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4}))
    torch.save({"x.lora_A.weight": Bomb()}, folder / "adapter_model.bin")
    with warnings.catch_warnings(), pytest.raises(CheckpointError, match="open"):
        am.load_adapter(folder, base())
    assert not (shop / "boom").exists()
