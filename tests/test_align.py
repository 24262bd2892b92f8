"""Models that do not fit together: what changes nothing is done and said, and every mend that is printed works."""

from __future__ import annotations

import re
import shlex

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as hyp
from strategies import assert_equal

import adamerging_lib as am
from adamerging_lib import state as st
from adamerging_lib.cli import main
from adamerging_lib.files.align import Options, align
from adamerging_lib.state import CheckpointError

GENERATOR = torch.Generator().manual_seed(0)
TRIL = torch.ones(1, 1, 4, 4).tril()
PLACES = torch.arange(9)[None]


def draw(*shape):
    return torch.randn(shape, generator=GENERATOR)


def core():
    return {
        "embed.weight": draw(7, 4),
        "layers.0.q.weight": draw(4, 4),
        "layers.0.q.bias": draw(4),
        "norm.weight": draw(4),
    }


def trained(state):
    return {key: (t + 0.1 * draw(*t.shape)).to(t) if t.is_floating_point() else t for key, t in state.items()}


def head(state, **of):
    return state | {"lm_head.weight": state["embed.weight"].clone()} | of


BASE = core()
# What θ0 has beyond its core, what an expert has, and what is said of it.
HANDLED = {
    "positions in the base alone": ({"e.position_ids": PLACES}, {}, "lacks, or has otherwise.*e.position_ids"),
    "positions in the expert alone": ({}, {"e.position_ids": PLACES}, "can do without, left out: e.position_ids"),
    "positions of another type": ({"position_ids": PLACES}, {"position_ids": PLACES.int()}, None),
    "positions as floats": ({"position_ids": PLACES}, {"position_ids": PLACES.float()}, "has otherwise.*position_ids"),
    "positions of another shape": ({"position_ids": PLACES}, {"position_ids": torch.arange(20)}, "position_ids"),
    "frequencies in the base alone": ({"rotary_emb.inv_freq": torch.rand(4)}, {}, "lacks.*inv_freq"),
    "frequencies in half precision": ({"r.inv_freq": torch.ones(4)}, {"r.inv_freq": torch.ones(4).half()}, "inv_freq"),
    "a causal mask of bytes and of bools": ({"h.0.attn.bias": TRIL.byte()}, {"h.0.attn.bias": TRIL.bool()}, None),
    "a causal mask of floats and of bools": ({"h.0.attn.bias": TRIL}, {"h.0.attn.bias": TRIL.bool()}, "attn.bias"),
    "a causal mask missing": ({"h.0.attn.bias": TRIL, "h.0.attn.masked_bias": torch.tensor(-1e4)}, {}, "attn.bias"),
    "a counter missing": ({"bn.num_batches_tracked": torch.tensor(3)}, {}, "num_batches_tracked"),
    "a counter as a float": (
        {"bn.num_batches_tracked": torch.tensor(3)}, {"bn.num_batches_tracked": torch.tensor(3.0)}, "num_batches"),
    "a mask of -inf missing": ({"attn_mask": torch.full((3, 3), -float("inf")).triu(1)}, {}, "attn_mask"),
    "a mask of -inf in the expert": ({}, {"attn_mask": torch.full((3, 3), -float("inf")).triu(1)}, "attn_mask"),
    "an index that only the base has": ({"attn.relative_position_index": torch.arange(100)}, {}, "relative_position"),
}  # fmt: skip


@pytest.mark.parametrize("name", HANDLED)
def test_what_changes_nothing_is_done_and_said(name):
    more, theirs, said = HANDLED[name]
    base, expert = BASE | more, trained(BASE) | theirs
    found = align(base, {"a": expert})
    assert (found.notes == ()) if said is None else re.search(f"expert 'a' .*{said}", " ".join(found.notes))
    tv = am.TaskVectors.from_state_dicts(base, {"a": expert})
    assert list(tv.vectors) == list(BASE)
    merged = tv.merge(torch.ones(1, 1), "task")
    assert list(merged) == list(base)
    for key, t in more.items():
        assert merged[key].dtype == t.dtype and torch.equal(merged[key], t)


def test_models_that_fit_are_not_touched():
    expert = trained(BASE)
    found = align(BASE, {"a": expert})
    assert found.pretrained is BASE and found.experts["a"] is expert and found.notes == ()


def test_a_tied_head_that_only_some_store():
    tied = head(BASE)
    without, with_head = trained(BASE), head(trained(BASE))
    # In the expert alone: the result has what θ0 has.
    found = align(BASE, {"a": with_head})
    assert "left out: lm_head.weight" in found.notes[0] and "lm_head.weight" not in found.experts["a"]
    # In the base alone: the expert's embedding stands for its head, and the two stay one tensor.
    tv = am.TaskVectors.from_state_dicts(tied, {"a": without, "b": with_head})
    assert tv.tied == {"lm_head.weight": "embed.weight"}
    merged = tv.merge(torch.ones(2, 1), "task")
    assert torch.equal(merged["lm_head.weight"], merged["embed.weight"])


def test_a_head_of_its_own_is_no_twin():
    own = head(trained(BASE), **{"lm_head.weight": draw(7, 4)})
    with pytest.raises(CheckpointError, match="unexpected lm_head.weight"):
        align(BASE, {"a": own})
    with pytest.raises(CheckpointError, match="missing lm_head.weight"):
        align(head(BASE, **{"lm_head.weight": draw(7, 4)}), {"a": trained(BASE)})
    zeros = {"layers.0.k.bias": torch.zeros(4), "layers.0.v.bias": torch.zeros(4)}
    with pytest.raises(CheckpointError, match="missing layers.0.v.bias"):  # two biases of zeros are two
        align(BASE | zeros, {"a": trained(BASE) | {"layers.0.k.bias": torch.zeros(4)}})


def renamed(state, prefix):
    return {prefix + key: t for key, t in state.items()}


# Base, expert, what is said, and the options that it names.
REFUSED = {
    "a head in the expert": (BASE, BASE | {"classifier.weight": draw(3, 4), "classifier.bias": draw(3)},
        "missing none, unexpected classifier.bias, classifier.weight", "--drop 'classifier.*'"),
    "a head in the base": (BASE | {"score.weight": draw(3, 4)}, BASE, "missing score.weight", "--drop 'score.*'"),
    "a name without a module": (BASE | {"score": draw(3)}, BASE, "missing score, unex", "--drop score"),
    "a tensor beside others": (BASE | {"norm.gain": draw(3)}, BASE, "missing norm.gain", "--drop norm.gain"),
    "brackets": (BASE | {"a[0].b": draw(3)}, BASE, r"missing a\[0\].b", "--drop 'a[0].b'"),
    "a prefix": (BASE, renamed(BASE, "model."), "different keys", "--strip model."),
    "a prefix of the base": (renamed(BASE, "base_model.model."), BASE, "different keys", "--strip base_model.model."),
    "a prefix and a head": (BASE, renamed(BASE | {"cls.weight": draw(3, 4)}, "module."), "different keys",
        "--strip module. --drop 'cls.*'"),
    "a prefix that the base has in part": (renamed(core(), "model.") | {"head.weight": draw(3, 4)}, None,
        "different keys", "--strip model."),
    "half precision": (BASE, {key: t.bfloat16() for key, t in BASE.items()},
        "'embed.weight' of expert 'a' has dtype bfloat16, pretrained has float32", "--cast"),
    "a vocabulary": (BASE, BASE | {"embed.weight": draw(8, 4)},
        r"shape \[8, 4\], pretrained has \[7, 4\]: another vocabulary or head. Give all models 8 rows first",
        "--drop 'embed.*'"),
    "a head of another size": (BASE | {"c.weight": draw(10, 4), "c.bias": draw(10)},
        BASE | {"c.weight": draw(20, 4), "c.bias": draw(20)}, r"has shape \[20.*another vocabulary or head",
        "--drop 'c.*'"),
    "a kernel of another size": (BASE | {"conv.weight": draw(4, 3, 2, 2)}, BASE | {"conv.weight": draw(4, 3, 4, 4)},
        r"'conv.weight' of expert 'a' has shape", "--drop 'conv.*'"),
    "a float where the base has whole numbers": (BASE | {"w.table": torch.arange(100)}, BASE | {"w.table": draw(100)},
        "dtype float32, pretrained has int64", "--drop 'w.*'"),
    "everything": (BASE, renamed({k: t.half() for k, t in (BASE | {"cls.weight": draw(3, 4)}).items()}, "net."),
        "different keys", "--strip net. --drop 'cls.*' --cast"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_every_mend_that_is_printed_works(name, tmp_path, monkeypatch, capsys):
    base, expert, said, options = REFUSED[name]
    expert = renamed(base, "model.") if expert is None else expert
    expert = trained(expert)
    monkeypatch.chdir(tmp_path)
    for file, state in (("base", base), ("a", expert)):
        st.save(f"{file}.safetensors", state)
    command = (
        "merge --method weight_averaging --pretrained base.safetensors --expert a=a.safetensors --out m.safetensors"
    )
    assert main(command.split()) == 2
    told = capsys.readouterr().err
    assert re.search(said, told), told
    assert f"this goes on: {options} (from Python " in told
    assert main([*command.split(), *shlex.split(options)]) == 0, capsys.readouterr().err
    merged = st.load("m.safetensors")
    python = re.search(r"from Python (.*?)\)[;\s]", told + " ")[1]
    assert_equal(
        dict(sorted(merged.items())),
        dict(sorted(eval(f"am.TaskVectors.from_state_dicts(base, {{'a': expert}}, {python})", {  # noqa: S307
            "am": am, "base": base, "expert": expert}).merge(torch.ones(1, 1), "task").items())),
    )  # fmt: skip
    eval(
        f"am.merge_files('zero_shot', 'base.safetensors', {{'a': 'a.safetensors'}}, 'n.safetensors', {python})",
        {"am": am},
    )  # noqa: S307
    assert st.load("n.safetensors").keys() == merged.keys()
    assert ("then lacks what is dropped" in told) == ("--drop" in options)


def test_what_was_decided_is_said():
    base, expert = BASE | {"c.weight": draw(3, 4)}, renamed(trained(BASE), "model.")
    notes = align(base, {"a": {k: t.half() for k, t in expert.items()}}, Options.of("c.*", "model.", True)).notes
    assert notes == (
        "model. taken off the names of expert 'a'",
        "dropped, and not in the result: c.weight",
        "expert 'a': 4 tensors cast from float16 to the types of pretrained",
    )


def test_options_that_fit_nothing_are_refused():
    with pytest.raises(ValueError, match="no tensor's name fits 'klass"):
        align(BASE, {"a": BASE}, Options.of(["klass.*"]))
    with pytest.raises(ValueError, match="no tensor's name begins with 'net'"):
        align(BASE, {"a": BASE}, Options.of((), "net"))


def test_a_prefix_that_all_have_goes_from_all():
    found = align(renamed(BASE, "model."), {"a": renamed(BASE, "model.")}, Options.of((), ["model"]))
    assert list(found.pretrained) == list(found.experts["a"]) == list(BASE)


@given(hyp.lists(hyp.booleans(), min_size=2, max_size=5), hyp.booleans())
def test_a_prefix_goes_from_those_that_have_it(prefixed, dotted):
    base, *experts = [renamed(BASE, "net.") if has else BASE for has in prefixed]
    if any(prefixed):
        found = align(
            base, {f"t{k}": state for k, state in enumerate(experts)}, Options.of((), "net." if dotted else "net")
        )
        assert all(list(state) == list(BASE) for state in (found.pretrained, *found.experts.values()))


def test_casting_that_overflows_is_refused():
    base = {key: t.half() for key, t in BASE.items()}
    expert = {key: 1e6 * t for key, t in BASE.items()}
    with pytest.raises(CheckpointError, match="'embed.weight' is too large for float16.*cast pretrained to float32"):
        am.TaskVectors.from_state_dicts(base, {"a": expert}, cast=True)


def test_another_architecture_gets_no_mend_that_drops_it_all():
    other = {f"blocks.{n}.w": draw(3, 3) for n in range(9)}
    with pytest.raises(CheckpointError, match="too little is left that fits: give the pretrained model") as error:
        align(BASE, {"a": other})
    assert "--drop" not in str(error.value)


@pytest.mark.parametrize("owner", ["pretrained", "a", "both"])
def test_empty_tensors_of_zero_3(owner):
    empty = {key: torch.zeros(0) for key in BASE}
    base, expert = (empty if owner in (name, "both") else BASE for name in ("pretrained", "a"))
    with pytest.raises(CheckpointError, match=r"no entries in .* \(shape \[0\]\).*python zero_to_fp32.py"):
        align(base, {"a": expert})
    some = BASE | {"embed.weight": torch.zeros(0)}
    with pytest.raises(CheckpointError, match=r"shape \[0\] are empty. .*zero_to_fp32.py"):
        align(BASE, {"a": some})


def test_quantised_models_are_refused_before_their_names_are_compared():
    int8 = {key: t.char() for key, t in BASE.items()} | {"layers.0.q.SCB": draw(4)}
    for base, expert, owner in ((int8, BASE, "pretrained"), (BASE, int8, "expert 'a'"), (int8, int8, "pretrained")):
        with pytest.raises(
            CheckpointError, match=f"{owner} is quantised .*bitsandbytes.* merge the unquantised models"
        ):
            align(base, {"a": expert})


def test_codes_without_their_scales_are_refused_where_they_differ():
    codes = {"w.weight": torch.arange(64).char().reshape(8, 8), "norm.weight": draw(8)}
    am.TaskVectors.from_state_dicts(codes, {"a": codes})
    other = codes | {"w.weight": codes["w.weight"] + 1}
    with pytest.raises(CheckpointError, match="'w.weight' holds 64 whole numbers, which differ"):
        am.TaskVectors.from_state_dicts(codes, {"a": other})
    assert list(am.TaskVectors.from_state_dicts(codes, {"a": other}, drop="w.weight").vectors) == ["norm.weight"]
