"""Merging files: every data-free method gives what it gives in memory, bit for bit; what is said of it is true."""

from __future__ import annotations

import json
import os
import shutil
import warnings

import pytest
import torch
import toy
from shards import shards
from short import SHORT
from strategies import assert_equal, checkpoints

import adamerging_lib as am
from adamerging_lib import state as st
from adamerging_lib.cli import main
from adamerging_lib.files import kinds, lazy
from adamerging_lib.files.merge import execute_merge, merge_files
from adamerging_lib.files.plan import plan_merge
from adamerging_lib.merged import Merged
from adamerging_lib.methods import registry
from adamerging_lib.state import vectors_of
from adamerging_lib.vectors import geometry as diagnostics
from adamerging_lib.vectors.elementwise import add, total

FROM_FILES = [id for id in am.methods().index if registry.find(id).takes == "task_vectors"]


def saved(folder, pretrained, experts):
    """Files of a base and its experts: (base, {task: file})."""
    for name, state in {"base": pretrained, **experts}.items():
        st.save(folder / f"{name}.safetensors", state)
    return folder / "base.safetensors", {task: folder / f"{task}.safetensors" for task in experts}


@pytest.fixture
def files(tmp_path):
    return saved(tmp_path, *checkpoints(0, 3, torch.float32))


# Where values decide what must be known of all tensors.
VARIANTS = {
    "dare": [{}, {"base": "ties", "drop": 0.9}],
    "lines": [{}, {"base": "ties"}, {"base": "consensus_ta"}, {"alpha": 0.2}],
    "emr": [{}, {"rescale": "global"}],
    "pcb": [{}, {"ratio": 0.5, "clip": 0.1}],
    "doge_ta": [{"iterations": 3}],
    "wudi": [{}, {"rule": "authors"}],
}


def vit(dtype):
    suite = toy.suite(seed=5, dtype=dtype)
    return dict(suite.pretrained), {task: dict(state) for task, state in suite.experts.items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("method", FROM_FILES)
def test_files_merge_as_state_dicts_do(method, dtype, tmp_path):
    base, experts = saved(tmp_path, *vit(dtype))
    row = registry.find(method)
    out = tmp_path / "merged" if row.task_id else tmp_path / "merged.safetensors"
    loaded = am.TaskVectors.from_state_dicts(st.load(base), {task: st.load(path) for task, path in experts.items()})
    for variant in VARIANTS.get(method, [SHORT.get(method, {})]):
        report = merge_files(method, base, experts, out, progress=False, force=True, **variant)
        merged = am.merge(method, loaded, **variant)
        assert set(report.plan.outputs) == (set(experts) if row.task_id else {None})
        for task, path in report.plan.outputs.items():
            assert_equal(st.load(path), {key: merged.state_dict(task)[key] for key in st.load(path)})
            assert st.load(path).keys() == merged.state_dict(task).keys()


def odd(dtype=torch.float32):
    """A small language model in which everything occurs that is not a plain weight, its names not in a file's order."""
    generator = torch.Generator().manual_seed(3)

    def draw(k):
        def tensor(*shape):
            return torch.randn(shape, generator=generator).to(dtype)

        embedding = tensor(9, 4)
        state = {"tokens.weight": embedding}
        for n in range(2):
            state |= {
                f"model.layers.{n}.self_attn.q_proj.weight": tensor(4, 4),
                f"model.layers.{n}.norm.weight": tensor(4),
            }
            state |= {
                f"model.layers.{n}.mlp.up_proj.weight": tensor(6, 4),
                f"model.layers.{n}.mlp.bias": torch.zeros(6),
            }
            state[f"model.layers.{n}.mlp.bias"] = state[f"model.layers.{n}.mlp.bias"].to(dtype)
        state |= {"bn.running_var": torch.full((3,), 1 - 0.3 * k).to(dtype), "bn.running_mean": tensor(3)}
        state |= {"bn.num_batches_tracked": torch.tensor(k), "position_ids": torch.arange(9)}
        state |= {"none.weight": torch.zeros(0, 4).to(dtype), "rotary_emb.inv_freq": torch.full((2,), 1.0 + k)}
        state |= {
            "mask": torch.full((3, 3), -float("inf")).triu(1).to(dtype),
            "scale": tensor(),
            "a_head.weight": embedding,
        }
        return state

    return draw(0), {"one": draw(1), "two": draw(2)}


@pytest.mark.filterwarnings("ignore:running statistics are averaged:UserWarning")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("method", FROM_FILES)
def test_what_is_no_plain_weight_is_treated_alike_in_files_and_in_memory(method, dtype, tmp_path):
    pretrained, states = odd(dtype)
    files = saved(tmp_path, pretrained, states)
    out = tmp_path / "m" if registry.find(method).task_id else tmp_path / "m.safetensors"
    for variant in VARIANTS.get(method, [SHORT.get(method, {})]):
        report = merge_files(method, *files, out, progress=False, force=True, **variant)
        merged = am.merge(method, am.TaskVectors.from_state_dicts(pretrained, states), **variant)
        for task, path in report.plan.outputs.items():
            state, found = merged.state_dict(task), st.load(path)
            assert state.keys() == found.keys()
            for key, t in found.items():
                assert t.dtype == state[key].dtype and kinds.same_bits(t, state[key]), key
            assert torch.equal(found["tokens.weight"], found["a_head.weight"])
            variance = pretrained["bn.running_var"] if method == "zero_shot" else torch.full((3,), 0.55).to(dtype)
            assert torch.allclose(found["bn.running_var"].float(), variance.float(), atol=1e-3)
            for key in ("mask", "none.weight", "position_ids", "bn.num_batches_tracked", "rotary_emb.inv_freq"):
                assert kinds.same_bits(found[key], pretrained[key]), key
    assert report.tied == {"tokens.weight": "a_head.weight"} and report.masks == ("mask",)
    assert set(report.buffers) == {"bn.num_batches_tracked", "rotary_emb.inv_freq"}
    assert report.statistics == ("bn.running_mean", "bn.running_var")
    assert any("bn.running_var" in line and "recalibrated" in line for line in report.warnings) == (
        method != "zero_shot"
    )


ENTRYWISE = [id for id in FROM_FILES if registry.find(id).entrywise]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
@pytest.mark.parametrize("method", ENTRYWISE)
def test_large_tensors_merged_in_pieces_are_the_whole_ones(method, dtype, tmp_path, monkeypatch):
    generator = torch.Generator().manual_seed(4)
    pretrained, *experts = ({"small": torch.randn(3, generator=generator).to(dtype),
                             "big": torch.randn(37, 41, generator=generator).to(dtype)} for _ in range(4))  # fmt: skip
    states = {f"t{k}": state for k, state in enumerate(experts)}
    files = saved(tmp_path, pretrained, states)
    for module in ("files.by_tensor", "files.lazy", "vectors.elementwise"):
        monkeypatch.setattr(f"adamerging_lib.{module}.PIECE", 64)
    monkeypatch.setattr("adamerging_lib.vectors.geometry._CACHED", 32)
    report = merge_files(method, *files, tmp_path / "m.safetensors", progress=False)
    tv = am.TaskVectors.from_state_dicts(pretrained, states)
    assert_equal(
        dict(sorted(st.load(tmp_path / "m.safetensors").items())),
        dict(sorted(am.merge(method, tv).state_dict().items())),
    )
    monkeypatch.undo()
    whole = diagnostics.compare(diagnostics.geometry(tv))
    assert report.experts.equals(whole) or torch.allclose(
        torch.tensor(report.experts[["norm", "relative", "changed", "conflict", "cosine"]].to_numpy(float)),
        torch.tensor(whole[["norm", "relative", "changed", "conflict", "cosine"]].to_numpy(float)), rtol=1e-12,
    )  # fmt: skip


def test_entrywise_methods():
    assert set(ENTRYWISE) == {"task_arithmetic", "weight_averaging", "ties", "pcb", "consensus_ta"}


def test_python_warns_of_statistics():
    tv = am.TaskVectors.from_state_dicts(*odd())
    with pytest.warns(UserWarning, match=r"statistics are averaged .*bn.running_var.*recalibrated"):
        am.merge("task_arithmetic", tv)
    with warnings.catch_warnings(action="error"):
        am.merge("zero_shot", tv)
        am.merge("task_arithmetic", am.TaskVectors.from_state_dicts(*checkpoints(0, 2, torch.float32)))


def test_a_method_that_does_not_say_that_it_streams_gets_all_tensors(files, tmp_path, monkeypatch, capsys):
    """The safe default for methods registered elsewhere."""
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))

    @registry.register("by_count", label="By count", needs="nothing", source="this test")
    def by_count(tv):
        return Merged(add(tv, total(tv), 1 / len(tv.vectors)), "by_count", {}, tv.tasks)

    base, experts = files
    merge_files("by_count", base, experts, tmp_path / "m.safetensors", progress=False)
    loaded = am.TaskVectors.from_state_dicts(st.load(base), {task: st.load(path) for task, path in experts.items()})
    assert_equal(st.load(tmp_path / "m.safetensors"), am.merge("by_count", loaded).state_dict())
    named = [f"--expert={task}={path}" for task, path in experts.items()]
    command = ["merge", "--method=by_count", f"--pretrained={base}", *named, f"--out={tmp_path / 'n.safetensors'}"]
    assert main([*command, "--dry-run"]) == 0
    assert "with all models loaded" in capsys.readouterr().out


def test_every_method_of_ours_streams():
    assert all(registry.find(id).streams for id in FROM_FILES)


def test_metadata_says_what_was_merged(files, tmp_path):
    base, experts = files
    merge_files("ties", base, experts, tmp_path / "m.safetensors", progress=False, keep=0.5)
    told = st.load_metadata(tmp_path / "m.safetensors")
    assert told["method"] == "ties" and told["format"] == "pt" and told["library"] == f"adamerging_lib {am.__version__}"
    assert json.loads(told["hyper"]) == {"keep": 0.5, "reduction": "sum", "scaling": 0.3}
    assert json.loads(told["pretrained"]) == {"base.safetensors": st.sha256(base)}
    assert json.loads(told["experts"]) == {task: {path.name: st.sha256(path)} for task, path in experts.items()}
    assert told["date"].startswith("20") and "task" not in told


def test_checkpoints_in_several_files(tmp_path):
    pretrained, experts = checkpoints(1, 2, torch.float16)
    whole = saved(tmp_path, pretrained, experts)
    parts = {}
    for name, state in {"base": pretrained, **experts}.items():
        (tmp_path / name).mkdir()
        shards(tmp_path / name, state)
        parts[name] = tmp_path / name
    merge_files("task_arithmetic", *whole, tmp_path / "a.safetensors", progress=False)
    merge_files("task_arithmetic", parts.pop("base"), parts, tmp_path / "b.safetensors", progress=False)
    assert_equal(st.load(tmp_path / "a.safetensors"), st.load(tmp_path / "b.safetensors"))


def test_comparison_is_its_formulas(suite):
    tv = suite.task_vectors()
    flat = torch.cat([t.reshape(len(t), -1) for t in tv.vectors.values()], 1).double()
    frame = diagnostics.compare(diagnostics.geometry(tv))
    assert frame["norm"].tolist() == pytest.approx(flat.norm(dim=1).tolist())
    assert frame["relative"].tolist() == pytest.approx(diagnostics.relative_norms(tv).tolist())
    assert frame["changed"].tolist() == [1, 1, 1]
    against = ((flat * flat.sum(0)) < 0).double().mean(1)
    assert frame["conflict"].tolist() == pytest.approx(against.tolist(), abs=1e-3)
    angles = diagnostics.cosines(tv)
    for task, row in frame.iterrows():
        assert angles.loc[task, row["nearest"]] == angles.loc[task].drop(task).max() == pytest.approx(row["cosine"])
    assert diagnostics.compare(diagnostics.geometry(tv.subset(["beta"])))["nearest"].tolist() == [None]


def test_gram_in_pieces():
    t = torch.randn(3, 1 << 20, 2, generator=torch.Generator().manual_seed(0))
    flat = t.flatten(1).double()
    torch.testing.assert_close(diagnostics._gram_of(t), flat @ flat.T)


def test_an_idle_and_a_foreign_expert_are_warned_of(tmp_path):
    pretrained, experts = checkpoints(0, 1, torch.float32)
    experts |= {"idle": pretrained, "foreign": {key: 3 * t for key, t in experts["task_0"].items()}}
    report = merge_files("task_arithmetic", *saved(tmp_path, pretrained, experts), tmp_path / "m.safetensors")
    assert any("expert 'idle' equals pretrained" in line for line in report.warnings)
    assert any("expert 'foreign' " in line for line in report.warnings), report.warnings
    assert report.experts.loc["idle", ["norm", "changed", "conflict"]].tolist() == [0, 0, 0]


def test_a_buffer_that_an_expert_changed_is_named(tmp_path):
    pretrained, experts = checkpoints(0, 2, torch.float32)
    experts["task_1"]["position_ids"] += 1
    report = merge_files("weight_averaging", *saved(tmp_path, pretrained, experts), tmp_path / "m.safetensors")
    assert report.buffers == ("position_ids",)
    assert torch.equal(st.load(tmp_path / "m.safetensors")["position_ids"], pretrained["position_ids"])


def refused(message, files, out, method="ties", **options):
    """The merge is refused with this message, and leaves the folder as it was."""
    folder = files[0].parent
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=message):
        merge_files(method, *files, out, progress=False, **options)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_base_of_zeros_is_foreign(tmp_path):
    pretrained, experts = checkpoints(0, 2, torch.float32)
    pretrained = {key: torch.zeros_like(t) for key, t in pretrained.items()}
    report = merge_files("ties", *saved(tmp_path, pretrained, experts), tmp_path / "m.safetensors", progress=False)
    assert report.experts["relative"].tolist() == [float("inf")] * 2
    assert sum("all zeros" in line and "fine-tuned from this" in line for line in report.warnings) == 2


def test_huge_numbers_are_named(tmp_path):
    base = {"w": torch.full((4, 4), 3e38)}
    files = saved(tmp_path, base, {"a": {"w": -base["w"]}, "b": {"w": torch.ones(4, 4)}})
    for method in ("ties", "weight_averaging"):
        refused(
            "'w' of 'a' differs from pretrained by more than float32 can hold",
            files,
            tmp_path / "m.safetensors",
            method,
        )


def test_nothing_is_left_to_merge(tmp_path):
    nan = {"w": torch.full((4,), float("nan"))}
    files = saved(tmp_path, nan, {"a": nan, "b": nan | {"w": nan["w"].clone()}})
    refused("no tensor is left to merge", files, tmp_path / "m.safetensors")


def test_a_method_is_heard_before_anything_is_read(files, tmp_path, monkeypatch):
    def unread(*_):
        raise AssertionError("read")

    monkeypatch.setattr("adamerging_lib.files.checkpoint.CheckpointFile.__getitem__", unread)
    for method, hyper, message in (
        ("ties", {"keep": 20}, "keep=20 is not a share"),
        ("ties", {"reduction": "median"}, "reduction 'median' is unknown"),
        ("dare", {"drop": 50}, "drop=50 is not a share"),
        ("pcb", {"ratio": 5}, "ratio=5 is out of range"),
    ):
        with pytest.raises(ValueError, match=message):
            plan_merge(method, *files, tmp_path / "m.safetensors", **hyper)


def test_output_that_exists_is_replaced_only_by_force(files, tmp_path):
    out = tmp_path / "m.safetensors"
    out.write_text("mine")
    refused("m.safetensors exists: choose another output, or replace it with --force", files, out)
    merge_files("ties", *files, out, force=True, progress=False)
    assert st.load_metadata(out)["method"] == "ties"


def test_an_input_is_never_replaced(files, tmp_path):
    base, experts = files
    refused("is the file of pretrained and is never replaced", files, base, force=True)
    (tmp_path / "link.safetensors").symlink_to(experts["task_1"])
    refused("is the file of expert 'task_1' and is never replaced", files, tmp_path / "link.safetensors", force=True)


def test_a_link_that_leads_nowhere_counts_as_an_output_that_exists(files, tmp_path):
    link, there = tmp_path / "m.safetensors", tmp_path / "disk" / "real.safetensors"
    link.symlink_to(there)
    refused("m.safetensors is a link to .*real.safetensors, which is not there: choose another", files, link)
    assert link.is_symlink() and not there.exists()
    merge_files("ties", *files, link, force=True, progress=False)
    assert link.is_symlink() and st.load_metadata(there)["method"] == "ties"
    loop = tmp_path / "loop.safetensors"
    loop.symlink_to(loop)
    refused("loop.safetensors is a link to", files, loop)


def test_a_tilde_is_the_home_folder(files, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    base, experts = "~/base.safetensors", {task: f"~/{task}.safetensors" for task in files[1]}
    merge_files("ties", base, experts, "~/sub/m.safetensors", progress=False)
    assert st.load_metadata(tmp_path / "sub" / "m.safetensors")["method"] == "ties" and not (tmp_path / "~").exists()
    named = [f"--expert={task}={path}" for task, path in experts.items()]
    command = ["merge", "--method=ties", f"--pretrained={base}", *named, "--out=~/n.safetensors"]
    assert main(command) == 0 and (tmp_path / "n.safetensors").is_file()
    st.save("~/o.safetensors", {"a": torch.ones(1)})
    assert (tmp_path / "o.safetensors").is_file()
    os.rename(tmp_path / "base.safetensors", tmp_path / "~nobody.safetensors")  # a name, and no such user
    merge_files("ties", "~nobody.safetensors", experts, "~/p.safetensors", progress=False)


def test_the_same_expert_twice(files, tmp_path):
    base, experts = files
    again = tmp_path / "again.safetensors"
    shutil.copy(experts["task_0"], again)
    refused("'task_0' and 'b' have the same content", (base, {**experts, "b": again}), tmp_path / "m.safetensors")
    same = {**experts, "b": experts["task_0"]}
    refused("'task_0' and 'b' are the same file", (base, same), tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: s.pop("scale"), "expert 'task_1' and pretrained have different keys: missing scale"),
        (lambda s: s.update(more=torch.zeros(1)), "unexpected more"),
        (lambda s: s.update(scale=torch.zeros(2)), r"'scale' of expert 'task_1' has shape \[2\], pretrained has \[\]"),
        (
            lambda s: s.update(scale=torch.tensor(1.0).half()),
            "'scale' of expert 'task_1' has dtype .*cast",
        ),
        (lambda s: s.update(scale=torch.tensor(float("inf"))), "'scale' of 'task_1' holds NaN or Inf"),
    ],
)
def test_experts_that_do_not_fit(spoil, message, tmp_path):
    pretrained, experts = checkpoints(0, 2, torch.float32)
    spoil(experts["task_1"])
    refused(message, saved(tmp_path, pretrained, experts), tmp_path / "m.safetensors")


def test_overflow_is_not_written(tmp_path):
    pretrained, experts = checkpoints(0, 2, torch.float16)
    for state in experts.values():
        state["scale"].fill_(60_000)
    whole = saved(tmp_path, pretrained, experts)
    refused("'scale' holds NaN or Inf once merged", whole, tmp_path / "m.safetensors", "task_arithmetic", scaling=1.0)


def test_values_and_outputs_that_a_method_cannot_take(files, tmp_path):
    out = tmp_path / "m.safetensors"
    refused("ties has no parameter 'kep'. Did you mean 'keep'?", files, out, kep=0.2)
    refused("ties: keep='many' should be of type float", files, out, keep="many")
    refused("keep=20 is not a share", files, out, keep=20)
    refused("method 'teis' is unknown: did you mean 'ties'?", files, out, "teis")
    refused("needs: unlabelled test images", files, out, "layer_wise_adamerging")
    refused("needs: no merging", files, out, "individual")
    refused("should be a file", files, tmp_path / "folder")
    refused("name 'a/b' of expert", (files[0], {"a/b": files[1]["task_0"]}), out)
    st.save(tmp_path / "int.safetensors", {"a": torch.arange(3)})
    st.save(tmp_path / "int2.safetensors", {"a": torch.arange(3) + 1})
    whole = (tmp_path / "int.safetensors", {"a": tmp_path / "int2.safetensors"})
    refused("has no floating-point tensor", whole, out)


@pytest.mark.parametrize("method", [id for id in FROM_FILES if registry.find(id).task_id])
def test_task_specific_weights_go_into_a_folder(method, files, tmp_path):
    refused("give a folder as output, such as .*m, for task_0.safetensors", files, tmp_path / "m.safetensors", method)
    merge_files(method, *files, tmp_path / "m", progress=False, **SHORT.get(method, {}))
    assert st.load_metadata(tmp_path / "m" / "task_2.safetensors")["task"] == "task_2"
    refused("task_0.safetensors exists", files, tmp_path / "m", method)


def test_room_on_the_disk_is_checked_first(files, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10))
    refused("the disk has 0.00 GB: make room first", files, tmp_path / "deep" / "m.safetensors")


def test_a_plan_touches_nothing(files, tmp_path):
    plan = plan_merge("ties", *files, tmp_path / "deep" / "m.safetensors")
    assert plan.parameters == 19 and plan.size == 19 * 4 + 3 * 8 and not plan.replaces
    assert plan.memory < plan_merge("zero_shot", *files, tmp_path / "m.safetensors").memory * 10
    assert not (tmp_path / "deep").exists()
    assert execute_merge(plan, progress=False).seconds >= 0
    assert (tmp_path / "deep" / "m.safetensors").is_file()


def test_small_task_vectors_are_made_once_for_all_passes(files, tmp_path, monkeypatch):
    """Ties passes over them four times after they were checked; large ones are made anew, for memory."""
    made = []
    monkeypatch.setattr(lazy, "vectors_of", lambda key, *given, make=vectors_of: made.append(key) or make(key, *given))
    merge_files("ties", *files, tmp_path / "m.safetensors", progress=False)
    assert {key: made.count(key) for key in made} == dict.fromkeys(made, 2) and len(made) > 4
    monkeypatch.setattr(lazy, "_SMALL", 0)
    made.clear()
    merge_files("ties", *files, tmp_path / "n.safetensors", progress=False)
    assert min(made.count(key) for key in made) == 5
    assert_equal(st.load(tmp_path / "m.safetensors"), st.load(tmp_path / "n.safetensors"))


def test_only_so_much_is_kept():
    kept = lazy.Kept(left=100)
    tensors = {name: torch.ones(10) for name in "abc"}
    assert all(kept.keep(name, t) is t for name, t in tensors.items())
    assert kept.vectors.keys() == {"a", "b"} and kept.left == 20
