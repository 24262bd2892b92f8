"""The shipped zoo: verified on loading, small enough to ship, and as good as its manifest says."""

import json
import shutil

import pytest
import torch

import adamerging_lib as am
from adamerging_lib.methods import individual, traditional_mtl, zero_shot
from adamerging_lib.state import CheckpointError, sha256
from adamerging_lib.worlds import profiles
from adamerging_lib.worlds.clip import hub
from adamerging_lib.worlds.mini import build
from adamerging_lib.worlds.mini import world as mini
from adamerging_lib.worlds.mini.build import Builder, Recipe, Schedule, report
from adamerging_lib.worlds.mini.tasks import TASKS, MiniTask
from adamerging_lib.worlds.mini.world import load_mini, mini_images
from adamerging_lib.worlds.roles import same_role
from adamerging_lib.worlds.zoo import SHIPPED, load_checkpoint, read_manifest


@pytest.fixture(scope="module")
def suite():
    return am.load_suite("mini")


@pytest.fixture
def copied(tmp_path):
    return shutil.copytree(SHIPPED, tmp_path / "mini")


def test_files_have_their_checksums_and_fit_in_forty_megabytes():
    manifest = read_manifest()
    assert set(manifest["files"]) == {"pretrained", "text", "heads", "joint", *am.profile("mini").tasks}
    for name, entry in manifest["files"].items():
        path = SHIPPED / f"{name}.safetensors"
        assert sha256(path) == entry["sha256"] and path.stat().st_size == entry["bytes"]
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 40e6
    assert {path.stem for path in SHIPPED.glob("*.safetensors")} == set(manifest["files"])


def test_the_manifest_is_of_the_recipe_in_the_code():
    assert read_manifest()["recipe"] == Recipe().plain()


def test_suite_has_every_task_in_order(suite):
    assert suite.tasks == am.profile("mini").tasks == tuple(task for task in TASKS if task in suite.tasks)
    assert set(same_role(suite.tasks, hub.EIGHT)) >= set(hub.EIGHT)
    scale = {round(head.norm(dim=1).mean().item(), 3) for head in suite.heads.values()}
    assert len(scale) == 1  # exp(logit_scale), the same for all
    for task, head in suite.heads.items():
        assert head.shape == (len(TASKS[task].classes), 128) and len(suite.test[task]) >= 1000
    assert all(t.dtype == torch.float32 for state in suite.experts.values() for t in state.values())


def test_reference_models_are_as_accurate_as_the_manifest_says(suite):
    stated = read_manifest()["accuracies"]
    for merged in (zero_shot(suite.task_vectors()), individual(suite), traditional_mtl(suite)):
        for row in am.evaluate(suite, merged).itertuples():
            assert row.accuracy == pytest.approx(stated[merged.method][row.task], abs=0.5), (merged.method, row.task)


def test_a_changed_byte_is_found_and_the_file_named(copied):
    path = copied / "signs.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    with pytest.raises(CheckpointError, match=r"signs\.safetensors has SHA-256 .* run `make zoo`"):
        load_mini(["digits", "signs"], copied)
    assert load_mini(["digits"], copied).tasks == ("digits",)


def test_missing_parts_are_named(copied, tmp_path):
    (copied / "joint.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*joint\.safetensors"):
        load_checkpoint("joint", copied)
    with pytest.raises(CheckpointError, match="no checkpoint 'sun397'; it has pretrained"):
        load_checkpoint("sun397", copied)
    with pytest.raises(CheckpointError, match=r"manifest\.json is missing"):
        read_manifest(tmp_path)
    (copied / "manifest.json").write_text(json.dumps({"schema": 99}))
    with pytest.raises(CheckpointError, match="schema 99"):
        read_manifest(copied)


def test_profiles_and_tasks_are_checked():
    with pytest.raises(ValueError, match="did you mean 'mini'"):
        am.load_suite("mni")
    with pytest.raises(ValueError, match="did you mean 'signs'"):
        am.load_suite("mini", tasks=["sign"])
    with pytest.raises(ValueError, match="named twice"):
        am.load_suite("mini", tasks=["signs", "signs"])
    with pytest.raises(ValueError, match="empty"):
        am.load_suite("mini", tasks=[])


def test_a_task_without_an_expert_stands_beside_the_profile(monkeypatch):
    monkeypatch.setitem(TASKS, "flags", MiniTask("flags", None, ("{}.",), (0.5, 1.0)))
    found = profiles._mini()
    assert found.tasks == am.profile("mini").tasks and found.further == ("flags",)
    with pytest.raises(CheckpointError, match="no checkpoint 'flags'.*make zoo"):
        load_mini(["digits", "flags"])


def test_report_names_the_worst_task():
    manifest = {"accuracies": {"individual": {"a": 90.0, "b": 70.0}}}
    assert report(manifest, None) == "individual        80.0 %  worst b  70.0 %"
    assert report(manifest, manifest).endswith("(shipped  80.0 %)")


def small_recipe() -> Recipe:
    brief = {"lr": 1e-3, "batch_size": 8, "warmup": 1}
    return Recipe(
        images=24, pretraining=Schedule(steps=4, **brief), fine_tuning=Schedule(steps=2, **brief),
        joint=Schedule(steps=2, **brief),
    )  # fmt: skip


def test_make_zoo_builds_a_loadable_zoo_and_goes_on_where_it_was_cut_off(tmp_path, monkeypatch):
    few = lambda task, split: mini_images(task, split, 24)  # noqa: E731
    monkeypatch.setattr(build, "mini_images", few)
    monkeypatch.setattr(mini, "mini_images", few)
    stopped, tune = [], Builder.tune

    def interrupted(self, name, *rest):
        if name == "aerial" and not stopped:
            stopped.append(name)
            raise KeyboardInterrupt
        tune(self, name, *rest)

    monkeypatch.setattr(Builder, "tune", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Builder(small_recipe(), tmp_path, "cpu", 1).run()
    builder = Builder(small_recipe(), tmp_path, "cpu", 1)
    done = {path.name: path.stat().st_mtime_ns for path in builder.out.glob("*.safetensors")}
    assert {"scenes.safetensors", "vehicles.safetensors"} <= set(done) and "joint.safetensors" not in done
    manifest = builder.run()
    for name in ("scenes.safetensors", "vehicles.safetensors"):
        assert (builder.out / name).stat().st_mtime_ns == done[name]

    assert manifest == read_manifest(builder.out) and manifest["recipe"] == small_recipe().plain()
    assert set(manifest["seconds"]) == {"drawing", "pre-training", "fine-tuning", "joint"}
    assert set(manifest["accuracies"]) == {"zero_shot", "individual", "traditional_mtl"}
    suite = load_mini(["digits"], builder.out)
    assert any(not torch.equal(suite.experts["digits"][key], suite.pretrained[key]) for key in suite.pretrained)
    assert not list(builder.work.glob("*.npy"))  # 1.2 GB at full size
