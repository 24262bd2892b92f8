"""The `clip-*` profiles on small models and data sets in the hub's layout: suite, heads, fits and errors."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest
import torch
import transformers
from clips import ClassificationHead, ImageEncoder, open_clip, pickled, randomised, to_hf
from mirror import SIZE, clip_config, put_data, put_models
from safetensors.torch import load_file, save_file
from torch.nn.functional import normalize

import adamerging_lib as am
from adamerging_lib.checkpoints import convert, load_clip_model
from adamerging_lib.runtime.values import Parameter
from adamerging_lib.worlds import profiles
from adamerging_lib.worlds.clip import hub
from adamerging_lib.worlds.clip import world as clip
from adamerging_lib.worlds.clip.tasks import TASKS
from adamerging_lib.worlds.roles import STAND_IN, same_role
from adamerging_study.book import rerun

NAMES = ["EuroSAT", "MNIST"]
FOUR, FIVE = "vision_model.", ""  # how transformers 4 and 5 name a vision model's tensors


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Assets with the names of both releases of transformers."""
    roots = {}
    for prefix in (FOUR, FIVE):
        roots[prefix] = tmp_path_factory.mktemp("assets")
        put_models(roots[prefix], "clip-b32", NAMES, prefix)
        for task in NAMES:
            put_data(roots[prefix], task, ("train", "test"))
    return roots


@pytest.fixture
def root(made, tmp_path, monkeypatch):
    """A copy, to be changed."""
    root = tmp_path / "assets"
    shutil.copytree(made[FOUR], root)
    monkeypatch.setenv("ADAMERGING_ASSETS", str(root))
    return root


def model_file(root, task="MNIST"):
    return root / hub.expert_model("clip-b32", task).place / "model.safetensors"


def test_a_suite_from_files_as_they_are_published(made, monkeypatch):
    suites = []
    for prefix in (FOUR, FIVE):
        monkeypatch.setenv("ADAMERGING_ASSETS", str(made[prefix]))
        suites.append(am.load_suite("clip-b32", tasks=NAMES))
    four, five = suites
    assert four.tasks == tuple(NAMES) and four.profile == "clip-b32" and four.joint is None
    assert {task: len(head) for task, head in four.heads.items()} == {t: len(TASKS[t].classes) for t in NAMES}
    for task in NAMES:
        assert four.test[task].images.shape[1:] == (3, SIZE, SIZE) and len(four.test[task]) == 24
        for key, tensor in four.experts[task].items():
            assert torch.equal(tensor, five.experts[task][key])
            assert torch.equal(tensor, four.pretrained[key]) == (key == "proj")  # taken from the base
    assert set(four.assets) == {
        f"{hub.base_model('clip-b32').id}/model.safetensors",
        *(f"{hub.expert_model('clip-b32', task).id}/model.safetensors" for task in NAMES),
    }
    assert four.mean[0] == pytest.approx(0.4815, abs=1e-4) and four.std[2] == pytest.approx(0.2758, abs=1e-4)


def test_logits_are_those_of_transformers_own_zero_shot_classifier(root):
    """One image through their CLIPModel, with prompts of ours, against ours through suite, encoder and head."""
    suite = am.load_suite("clip-b32", tasks=["EuroSAT"])
    folder = root / hub.base_model("clip-b32").place
    theirs = transformers.CLIPModel(transformers.CLIPConfig(**clip_config())).eval()
    theirs.load_state_dict(
        {k: t for k, t in load_file(folder / "model.safetensors").items() if "position_ids" not in k}
    )
    spec, images = TASKS["EuroSAT"], suite.normalise(suite.test["EuroSAT"].images[:4])
    with torch.no_grad():
        words = []
        for name in spec.classes:
            tokens = open_clip.SimpleTokenizer(context_length=77)([t.format(name) for t in spec.templates])
            found = theirs.get_text_features(tokens)
            words.append(normalize(getattr(found, "pooler_output", found), dim=-1).mean(0))
        seen = theirs.get_image_features(images)
        seen = normalize(getattr(seen, "pooler_output", seen), dim=-1)
        expected = theirs.logit_scale.exp() * seen @ normalize(torch.stack(words), dim=-1).t()
        ours = torch.func.functional_call(suite.encoder, dict(suite.pretrained), (images,))
    assert (normalize(ours, dim=-1) @ suite.heads["EuroSAT"].t() - expected).abs().max() < 1e-5
    assert expected.std() > 1e-3


def test_merged_evaluated_and_adapted(root):
    suite = am.load_suite("clip-b32", tasks=NAMES)
    merged = am.run_method("task_arithmetic", suite)
    for task, row in am.evaluate(suite, merged).set_index("task").iterrows():
        assert row["n"] == 24 and 0 <= row["accuracy"] <= 100, task
    fit = am.adamerge(suite, steps=3, lr=0.05, batch_size=4, batches=1, progress=False)
    assert fit.coefficients.tasks == tuple(NAMES) and (fit.coefficients.values != 0.3).any()
    again = am.run_method("layer_wise_adamerging", suite, steps=3, lr=0.05, batch_size=4, batches=1, progress=False)
    assert torch.equal(again.coefficients.values, fit.coefficients.values)
    rows = am.evaluate(suite, fit).to_dict("records")
    record = am.records.new("performance", "clip-b32", {}, suite, rows, [0], "2026-01-01T00:00:00", 1.0)
    assert all(len(digest) == 64 for digest in record["assets"].values()) and len(record["assets"]) == 3


def test_experts_and_training_images_are_read_when_they_are_asked_for(root, monkeypatch):
    read = []
    monkeypatch.setattr(clip, "load_encoder", lambda *a: read.append(a[0].parent.name) or load_encoder(*a))
    load_encoder = am.checkpoints.load_encoder
    suite = am.load_suite("clip-b32", tasks=NAMES)
    assert not read and set(suite.experts) == set(NAMES) and "MNIST" in suite.experts and len(suite.experts) == 2
    first = suite.experts["MNIST"]
    assert suite.experts["MNIST"] is first and read == ["clip-vit-base-patch32_mnist"]
    with pytest.raises(KeyError):
        suite.experts["SVHN"]
    assert len(suite.training()["EuroSAT"]) == 24
    shutil.rmtree(root / "datasets/ylecun/mnist/mnist")
    put_data(root, "MNIST", ("test",))
    suite = am.load_suite("clip-b32", tasks=NAMES)
    with pytest.raises(am.CheckpointError, match=r"mnist/train-\*.parquet\nFetch .*--profile clip-b32 --splits test"):
        suite.training()


def test_heads_are_kept_by_content(root, monkeypatch):
    calls = []
    monkeypatch.setattr(clip, "text_encoder", lambda *a: calls.append(a[1]) or text_encoder(*a))
    from adamerging_lib.worlds.encoders import text_encoder

    first = am.load_suite("clip-b32", tasks=NAMES).heads
    assert calls == NAMES
    again = am.load_suite("clip-b32", tasks=NAMES[::-1]).heads
    assert calls == NAMES and all(torch.equal(first[task], again[task]) for task in NAMES)
    other = dataclasses.replace(TASKS["MNIST"])
    monkeypatch.setitem(clip.TASKS, "MNIST", other)
    monkeypatch.setattr(type(other), "templates", property(lambda self: ("just a {}.",)))
    changed = am.load_suite("clip-b32", tasks=["MNIST"]).heads
    assert calls == [*NAMES, "MNIST"] and not torch.equal(changed["MNIST"], first["MNIST"])
    base = root / hub.base_model("clip-b32").place / "model.safetensors"
    state = load_file(base)
    state["text_projection.weight"] += 1
    save_file(state, base)
    am.load_suite("clip-b32", tasks=["MNIST"])
    assert calls == [*NAMES, "MNIST", "MNIST"]


def test_experts_in_other_forms(root):
    """Converted by `adamerging convert`, as pytorch_model.bin, or with a projection of their own."""
    expected = dict(am.load_suite("clip-b32", tasks=NAMES).experts)  # read before the files change
    eurosat, mnist = (model_file(root, task) for task in NAMES)
    convert(eurosat, root / "new.safetensors")
    (root / "new.safetensors").replace(eurosat)
    torch.save(load_file(mnist), mnist.with_name("pytorch_model.bin"))
    mnist.unlink()
    found = am.load_suite("clip-b32", tasks=NAMES)
    for task in NAMES:
        assert all(torch.equal(tensor, expected[task][key]) for key, tensor in found.experts[task].items())
    assert f"{hub.expert_model('clip-b32', 'MNIST').id}/pytorch_model.bin" in found.assets


@pytest.mark.parametrize(("pool", "end", "tuned"), [("p1", "", "finetuned"), ("p3", "Val", "nonlinear_finetuned")])
def test_checkpoints_of_task_vectors_and_tall_masks(root, monkeypatch, pool, end, tuned):
    """Whole pickled modules as they were published, one converted, and a head; nothing of them is executed."""
    folder = root / hub.expert_model(f"clip-b32-{pool}", "MNIST").place
    towers = {}
    for number, task in enumerate(NAMES):
        model = randomised(load_clip_model(root / hub.base_model("clip-b32").place), number + 5)
        towers[task] = {key: tensor.clone() for key, tensor in model.visual.state_dict().items()}
        (folder / f"{task}{end}").mkdir(parents=True)
        pickled(monkeypatch, folder / f"{task}{end}/{tuned}.pt", ImageEncoder(model))
    pickle = folder / f"EuroSAT{end}/{tuned}.pt"
    convert(pickle, pickle.with_suffix(".safetensors"))
    pickle.unlink()
    weight = torch.randn(10, 8)
    pickled(monkeypatch, folder / f"head_MNIST{end}.pt", ClassificationHead(weight))
    suite = am.load_suite(f"clip-b32-{pool}", tasks=NAMES)
    for task in NAMES:
        assert all(torch.equal(tensor, towers[task][key]) for key, tensor in suite.experts[task].items())
    theirs = am.load_suite("clip-b32", tasks=NAMES)
    assert torch.equal(suite.heads["MNIST"], weight) and torch.equal(suite.heads["EuroSAT"], theirs.heads["EuroSAT"])
    assert all(torch.equal(tensor, theirs.pretrained[key]) for key, tensor in suite.pretrained.items())
    name = folder.relative_to(root / "models").as_posix()
    assert {f"{name}/EuroSAT{end}/{tuned}.safetensors", f"{name}/head_MNIST{end}.pt"} <= set(suite.assets)
    am.adamerge(suite, steps=1, batch_size=2, batches=1, progress=False)
    shutil.rmtree(folder / f"MNIST{end}")
    with pytest.raises(am.CheckpointError, match=rf"missing: models/\w+/ViT-B-32/MNIST/finetuned.pt\n.*-{pool}"):
        am.load_suite(f"clip-b32-{pool}", tasks=NAMES)


def test_everything_missing_is_named_at_once_with_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("ADAMERGING_ASSETS", str(tmp_path / "none"))
    with pytest.raises(am.CheckpointError) as caught:
        am.load_suite("clip-b32")
    said = str(caught.value)
    for name in (
        "models/openai/clip-vit-base-patch32/config.json",
        "models/tanganke/clip-vit-base-patch32_stanford-cars",
        "datasets/tanganke/sun397/data/test-*.parquet",
        "datasets/ylecun/mnist/mnist/test-*.parquet",
    ):
        assert f"missing: {name}" in said
    assert said.count("missing: ") == 2 * 9 + 8 and said.endswith("adamerging fetch --profile clip-b32")


def test_half_a_download_is_named(root):
    for path in (model_file(root), next((root / "datasets/ylecun/mnist/mnist").glob("test*"))):
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(am.CheckpointError, match=rf"cut short: \S+{path.name}\nFetch them: adamerging fetch"):
            am.load_suite("clip-b32", tasks=NAMES)
        path.write_bytes(content)


def test_an_expert_of_another_architecture_is_named(root):
    vision = open_clip.model.CLIPVisionCfg(layers=3, width=16, head_width=8, patch_size=8, image_size=SIZE)
    tower = open_clip.model._build_vision_tower(8, vision, quick_gelu=True).state_dict()
    del tower["proj"]
    save_file({key: t.contiguous() for key, t in to_hf(tower).items()}, model_file(root))
    suite = am.load_suite("clip-b32", tasks=NAMES)
    with pytest.raises(am.CheckpointError, match="_mnist/.* is a ViT of 3 blocks, .* its base is a ViT of 2 blocks"):
        suite.task_vectors()
    config = model_file(root).with_name("config.json")
    config.write_text(json.dumps(json.loads(config.read_text()) | {"hidden_act": "gelu"}))
    shutil.copy(model_file(root, "EuroSAT"), model_file(root))
    with pytest.raises(am.CheckpointError, match="_mnist/.* was made for activation 'gelu'"):
        am.load_suite("clip-b32", tasks=NAMES).task_vectors()


def test_a_base_without_its_text_tower_is_named(root):
    base = root / hub.base_model("clip-b32").place / "model.safetensors"
    save_file({key: t for key, t in load_file(base).items() if not key.startswith("text_model")}, base)
    with pytest.raises(am.CheckpointError, match="lacks 'text_model.* of a whole CLIPModel"):
        am.load_suite("clip-b32", tasks=NAMES)


def test_a_hostile_pickle_in_an_experts_place_never_runs(root, monkeypatch):
    class Hostile:
        def __reduce__(self):
            return print, ("ran",)

    model_file(root).unlink()
    torch.save(Hostile(), model_file(root).with_name("pytorch_model.bin"))
    monkeypatch.setattr("builtins.print", lambda *a: pytest.fail("it ran"))
    with pytest.raises(am.CheckpointError, match="print"):
        am.load_suite("clip-b32", tasks=NAMES).task_vectors()


def test_a_data_set_with_a_missing_class_is_named(root):
    from datasets import ClassLabel, Dataset

    path = next((root / "datasets/tanganke/eurosat/data").glob("test*"))
    rows = Dataset.from_parquet(str(path), cache_dir=str(root / "cache"))
    fewer = ClassLabel(names=list(TASKS["EuroSAT"].classes[:-1]))
    keep = [index for index, label in enumerate(rows["label"]) if label < fewer.num_classes]
    rows.select(keep).cast_column("label", fewer).to_parquet(path)
    with pytest.raises(ValueError, match=rf"{path.name}.*EuroSAT"):
        am.load_suite("clip-b32", tasks=NAMES)


def test_a_disk_without_room_for_the_store_is_told_before_it_is_written(root, monkeypatch):
    free = shutil.disk_usage(root)
    monkeypatch.setattr("shutil.disk_usage", lambda path: free._replace(free=1000))
    with pytest.raises(ValueError, match="GB and the disk has 0.00 GB: make room first"):
        am.load_suite("clip-b32", tasks=NAMES)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_without_a_gpu(root):
    suite = am.load_suite("clip-b32", tasks=NAMES)
    with pytest.raises(ValueError, match="torch sees no GPU; use 'cpu' or 'auto'"):
        am.adamerge(suite, steps=1, device="cuda", progress=False)
    am.adamerge(suite, steps=1, device="auto", progress=False)


def test_tasks_are_known_by_their_role_in_both_directions():
    mini, paper = list(STAND_IN), am.profile("clip-b32").tasks
    assert set(mini) <= set(am.profile("mini").tasks)
    assert same_role(mini, paper) == list(paper) and same_role(paper, mini) == mini
    assert same_role(["CIFAR10", "nonsense", "digits"], paper) == ["CIFAR10", "nonsense", "MNIST"]
    assert profiles.check_tasks(am.profile("clip-b32"), ["vehicles", "SVHN"]) == ("Cars", "SVHN")
    assert profiles.check_tasks(am.profile("mini"), ["Cars"]) == ("vehicles",)
    with pytest.raises(ValueError, match="named twice"):
        profiles.check_tasks(am.profile("clip-b32"), ["digits", "MNIST"])
    assert tuple(STAND_IN.values()) == paper


def test_the_larger_suites_are_taken_by_name_and_the_eight_by_default():
    chosen = am.profile("clip-l14")
    assert profiles.check_tasks(chosen) == hub.EIGHT and len(hub.EIGHT) == 8
    assert profiles.check_tasks(chosen, hub.TWENTY) == hub.TWENTY
    assert profiles.check_tasks(chosen, list(TASKS)) == tuple(TASKS) and set(hub.TWENTY) <= set(TASKS)
    assert hub.FOURTEEN == hub.TWENTY[:14] and len(hub.TWENTY) == 20
    with pytest.raises(ValueError, match="no task 'Food11': did you mean 'Food101'"):
        profiles.check_tasks(chosen, ["Food11"])


def test_a_rerun_on_a_clip_profile_has_the_papers_budgets():
    known = {
        "profile": Parameter("str", "mini"), "steps": Parameter("int", 100), "reference": Parameter("str", "ViT-B-32"),
        "methods": Parameter("list[str]", ["zero_shot", "traditional_mtl"]), "batch_size": Parameter("int", 16),
    }  # fmt: skip
    assert rerun.filled("performance", {"steps": 7}, known) == {"steps": 7}
    assert rerun.filled("performance", {"profile": "mini", "steps": 7}, known) == {"profile": "mini", "steps": 7}
    found = rerun.filled("performance", {"profile": "clip-l14"}, known)
    assert found == {"profile": "clip-l14", "steps": 500, "reference": "ViT-L-14", "methods": ["zero_shot"]}
    own = {"profile": "clip-l14", "steps": 7, "methods": ["traditional_mtl"], "reference": "ViT-B-32"}
    assert rerun.filled("performance", own, known) == own and rerun.filled("performance", found, known) == found
    images = {"profile": Parameter("str", "mini"), "test_images": Parameter("int", 400)}
    for name, count in (("performance", 0), ("robustness", 1000)):
        assert rerun.filled(name, {"profile": "clip-b16"}, images)["test_images"] == count
    with pytest.raises(ValueError, match="profile 'clip-b3' is unknown"):
        rerun.filled("performance", {"profile": "clip-b3"}, known)
