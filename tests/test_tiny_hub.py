"""The profile `tiny-hub`, from a hub of our own: fetched, packed, trained and loaded, and what goes wrong named."""

from __future__ import annotations

import io
import json
import shutil

import numpy as np
import pytest
import torch
from hubfiles import write_split
from mirror import Mirror, put_data, put_vit, served
from PIL import Image

import adamerging_lib as am
from adamerging_lib.cli import main
from adamerging_lib.methods import individual, traditional_mtl
from adamerging_lib.state import CheckpointError
from adamerging_lib.worlds import profiles
from adamerging_lib.worlds.clip import hub
from adamerging_lib.worlds.clip import tasks as clip
from adamerging_lib.worlds.mini.stages import Schedule
from adamerging_lib.worlds.roles import STAND_IN, same_role
from adamerging_lib.worlds.tiny import build as tiny_build
from adamerging_lib.worlds.tiny import experts as zoo
from adamerging_lib.worlds.tiny import packing
from adamerging_lib.worlds.tiny import world as tiny
from adamerging_lib.worlds.tiny.packs import read_pack
from adamerging_lib.worlds.tiny.tasks import HUB_TASKS, SETTINGS, TASKS, Setting

PAIR = ["mnist", "eurosat"]
MODEL = "models/timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k"
FETCH = ["fetch", "--profile", "tiny-hub", "--tasks", "mnist,eurosat"]


@pytest.fixture(scope="session")
def there(tmp_path_factory):
    """What the hub has of two tasks."""
    root = tmp_path_factory.mktemp("hub")
    put_vit(root)
    for task in ("MNIST", "EuroSAT"):
        put_data(root, task, ("train", "test"), count=40, files=2)
    return root


@pytest.fixture
def root(tmp_path, monkeypatch):
    """An empty assets folder, four steps of training at 32 px, and a zoo of the test's own."""
    monkeypatch.setenv("ADAMERGING_ASSETS", str(tmp_path / "assets"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setitem(SETTINGS, "tiny-hub", Setting(32))
    monkeypatch.setattr(zoo, "EXPERT", Schedule(steps=4, lr=1e-3, batch_size=6, warmup=1))
    monkeypatch.setattr(tiny_build, "SAVE_EVERY", 2)
    return tmp_path / "assets"


@pytest.fixture
def copied(there, root):
    """All of the hub's files, put there by hand."""
    return shutil.copytree(there, root)


def built(*names):
    return main(["zoo", "--profile", "tiny-hub", "--models", ",".join(names), "--device", "cpu"])


def parquet(root, repository, split):
    return sorted((root / "datasets" / repository).rglob(f"{split}-*.parquet"))


def test_fetched_packed_trained_and_loaded(there, root, monkeypatch, capsys):
    with served(Mirror(there)) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        assert main([*FETCH, "--dry-run"]) == 0
        said = capsys.readouterr().out
        assert f"missing: {MODEL}/model.safetensors, " in said and not root.exists() and "next:" not in said
        assert main(FETCH) == 0
        assert "next: `adamerging zoo --profile tiny-hub`" in capsys.readouterr().out
    found = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    assert found == {
        f"{MODEL}/config.json", f"{MODEL}/model.safetensors",
        *(f"datasets/ylecun/mnist/mnist/{s}-0000{n}-of-00002.parquet" for s in ("test", "train") for n in (0, 1)),
        *(f"datasets/tanganke/eurosat/data/{s}-0000{n}-of-00002.parquet" for s in ("test", "train") for n in (0, 1)),
    }  # fmt: skip
    assert built(*PAIR) == 0 and capsys.readouterr().out.count("4 steps in 0 min") == 2
    shutil.rmtree(root / "datasets")  # the packs are enough
    suite = am.load_suite("tiny-hub", tasks=["landcover", "MNIST"])
    assert suite.tasks == ("eurosat", "mnist") and suite.joint is None and suite.profile == "tiny-hub"
    assert suite.test["mnist"].images.shape == (40, 3, 32, 32) and len(suite.training()["eurosat"]) == 40
    assert suite.test["mnist"].classes == clip.TASKS["MNIST"].classes
    assert set(suite.assets) == {
        "vit_tiny_patch16_224.augreg_in21k_ft_in1k/model.safetensors", "eurosat_jpg128.npz", "mnist_jpg128.npz",
        "tiny-hub/eurosat.safetensors", "tiny-hub/mnist.safetensors",
    }  # fmt: skip
    stated = json.loads(next((root.parent / "cache").rglob("mnist-*/manifest.json")).read_text())["accuracies"]
    measured = am.evaluate(suite, individual(suite)).set_index("task")["accuracy"]
    assert stated["individual"]["mnist"] == pytest.approx(measured["mnist"], abs=0.01)


def test_the_splits_can_be_chosen_and_the_weights_alone(there, root, monkeypatch):
    with served(Mirror(there)) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        assert main([*FETCH, "--splits", "test", "--only", "datasets"]) == 0
        assert not parquet(root, "ylecun/mnist", "train") and parquet(root, "ylecun/mnist", "test")
        assert main(["fetch", "--profile", "tiny-hub", "--only", "models"]) == 0
    assert sorted(path.name for path in (root / MODEL).iterdir()) == ["config.json", "model.safetensors"]


def test_without_a_hub_it_says_which_files_to_put_where(root, monkeypatch, capsys):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert main(["fetch", "--profile", "tiny-hub"]) == 2
    said = capsys.readouterr().err
    assert f"\n  {MODEL}/model.safetensors (or pytorch_model.bin)\n    about 0.02 GB, from https://hugg" in said
    for task in HUB_TASKS.values():
        home = f"datasets/{clip.TASKS[task.stand_in].repo}/"
        assert said.count(f"\n  {home}") == 2, task  # training and test images


def test_the_joint_model_is_trained_on_the_papers_eight(root, monkeypatch):
    put_vit(root)
    for task in STAND_IN.values():
        put_data(root, task, ("train", "test"))
    monkeypatch.setattr(zoo, "JOINT", Schedule(steps=1, lr=1e-3, batch_size=2, warmup=1))
    assert built("joint") == 0
    assert sorted(path.name for path in (root / "tiny-hub").glob("*.npz")) == sorted(
        f"{task}_jpg128.npz" for task in HUB_TASKS
    )
    assert built("svhn") == 0
    suite = am.load_suite("tiny-hub", tasks=["svhn"])
    assert am.evaluate(suite, traditional_mtl(suite)).n.sum() == 24
    (recipe,) = (
        json.loads(path.read_text())["recipe"] for path in (root.parent / "cache").rglob("svhn-*/manifest.json")
    )
    assert recipe["training"]["seed"] == 4 and not recipe["views"]["svhn"]["mirror"]


def test_features_are_those_of_timm(tmp_path):
    model = put_vit(tmp_path)
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    path = tmp_path / MODEL / "model.safetensors"
    encoder = tiny.pretrained_encoder(path, 224)
    with torch.inference_mode():
        expected = model.forward_head(model.forward_features(images), pre_logits=True)
        assert torch.equal(encoder(images), expected) and expected.std() > 0.3
    assert tiny.pretrained_encoder(path, 96).pos_embed.shape == (1, 37, 192)
    torch.save(model.state_dict(), path.with_name("pytorch_model.bin"))
    other = tiny.pretrained_encoder(path.with_name("pytorch_model.bin"), 224)
    assert all(torch.equal(tensor, encoder.state_dict()[key]) for key, tensor in other.state_dict().items())


def test_a_pack_holds_each_split_of_the_hub_under_its_labels(copied, monkeypatch):
    path = packing.make_pack("mnist", copied)
    images = {split: read_pack(path, split, 16) for split in ("train", "test")}
    for split, data in images.items():
        levels = [data.images[data.labels == label].float().mean() for label in range(10)]
        assert len(data) == 40 and levels == sorted(levels)  # the pictures' brightness tells the class
        first = Image.open(io.BytesIO(first_image(copied, split))).convert("RGB").crop((0, 1, 18, 19))
        near = np.asarray(first.resize((16, 16), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
        assert np.abs(data.images[0].numpy().astype(int) - near).mean() < 8
    with np.load(path) as pack:
        files = np.split(pack["jpg_bytes"], pack["offsets"][1:-1])
        jpeg = Image.open(io.BytesIO(files[0].tobytes()))
        assert (
            jpeg.format == "JPEG" and jpeg.size == (128, 128) and [layer[1:3] for layer in jpeg.layer] == [(1, 1)] * 3
        )
        assert json.loads(str(pack["made_from"]))["repository"] == "ylecun/mnist"
    before = path.read_bytes()
    path.unlink()
    assert packing.make_pack("mnist", copied).read_bytes() == before


def first_image(root, split):
    from pyarrow import parquet as reader

    return reader.read_table(parquet(root, "ylecun/mnist", split)[0]).column("image")[0].as_py()["bytes"]


def test_a_pack_is_capped_by_class_and_read_whatever_the_order_of_the_names(copied, monkeypatch):
    monkeypatch.setattr(packing, "IMAGES", {"train": 20, "test": 10})
    monkeypatch.setattr(packing, "LEAST", {"train": 1, "test": 1})
    spec = clip.TASKS["EuroSAT"]
    shutil.rmtree(copied / "datasets" / spec.repo)
    names = list(spec.classes)[::-1]
    for split in ("train", "test"):
        levels = [number % 10 for number in range(50)]  # of the reversed names
        pictures = [png(25 * level) for level in levels]
        write_split(copied, spec, split, pictures, levels, names=names)
    path = packing.make_pack("eurosat", copied)
    for split, count in (("train", 2), ("test", 1)):
        data = read_pack(path, split, 8)
        assert data.labels.bincount().tolist() == [count] * 10 and data.classes == spec.classes
        for image, label in zip(data.images, data.labels.tolist(), strict=True):
            assert abs(image.float().mean() - 25 * (9 - label)) < 3


def png(level):
    Image.new("RGB", (12, 9), (level,) * 3).save(buffer := io.BytesIO(), "PNG")
    return buffer.getvalue()


def test_draws_are_seeded_capped_and_ascending():
    labels = np.repeat([0, 1, 2], [50, 3, 20])[np.random.default_rng(0).permutation(73)]
    rows = packing.draw(labels, "abc", 5)
    assert np.bincount(labels[rows]).tolist() == [5, 3, 5] and (np.diff(rows) > 0).all()
    assert np.array_equal(rows, packing.draw(labels, "abc", 5))
    assert set(rows) <= set(packing.draw(labels, "abc", 9))
    assert not np.array_equal(rows, np.sort(np.concatenate([np.flatnonzero(labels == k)[:5] for k in range(3)])))
    with pytest.raises(ValueError, match=r"no image of the class 'd', 'e', 'f', 'g', 'h' and 2 more"):
        packing.draw(labels, "abcdefghij", 5)


def test_tasks_have_about_the_sizes_that_the_docstring_says():
    sizes = {}
    for name, task in HUB_TASKS.items():
        spec = clip.TASKS[task.stand_in]
        counts = {split: packing.most(split, len(spec.classes)) for split in ("train", "test")}
        sizes[name] = {s: min(count * len(spec.classes), spec.sizes[s]) for s, count in counts.items()}
        said = {"sun397": (25, 5), "cars": (25, 10), "gtsrb": (93, 47), "resisc45": (89, 44), "dtd": (85, 43)}
        assert tuple(counts.values()) == said.get(name, (400, 200))
    assert all(1850 <= size["test"] <= 2050 for size in sizes.values())
    assert all(3700 <= size["train"] <= 4100 for name, size in sizes.items() if name not in ("sun397", "cars"))
    assert (sizes["sun397"]["train"], sizes["cars"]["train"]) == (9925, 4900)


def test_tasks_have_the_papers_names_and_roles():
    assert am.profile("tiny-hub").tasks == tuple(HUB_TASKS)
    assert profiles.check_tasks(am.profile("tiny-hub"), list(hub.EIGHT)) == tuple(HUB_TASKS)
    assert same_role(TASKS, HUB_TASKS) == list(HUB_TASKS) and same_role(HUB_TASKS, TASKS) == list(TASKS)
    assert [task.views.mirror or task.views.turn for task in HUB_TASKS.values()] == [True] * 4 + [False] * 3 + [True]


def test_missing_files_are_named_with_the_command(copied):
    shutil.rmtree(copied / "datasets/tanganke/eurosat")
    shutil.rmtree(copied / MODEL)
    with pytest.raises(CheckpointError) as caught:
        tiny.asset_files(PAIR, "tiny-hub")
    said = str(caught.value)
    assert f"missing: {MODEL}/model.safetensors" in said and "eurosat/data/train-*.parquet" in said
    assert said.endswith("Fetch them: adamerging fetch --profile tiny-hub --tasks mnist,eurosat")
    put_vit(copied)
    assert set(tiny.asset_files(["mnist"], "tiny-hub")) == {"pretrained", "mnist"}
    with pytest.raises(CheckpointError, match="--profile tiny-hub --tasks eurosat$"):
        tiny.asset_files(PAIR, "tiny-hub")
    shutil.rmtree(copied / MODEL)
    with pytest.raises(CheckpointError, match="--profile tiny-hub --only models$"):
        tiny.asset_files(["mnist"], "tiny-hub")
    assert set(tiny.asset_files(PAIR, "tiny-hub", needed=False)) == {"mnist"}


def test_a_class_without_images_is_named(copied):
    spec = clip.TASKS["MNIST"]
    for path in parquet(copied, spec.repo, "train"):
        path.unlink()
    write_split(copied, spec, "train", [png(9)] * 9, list(range(9)))
    with pytest.raises(
        ValueError, match=r"MNIST train hold no image of the class '9': fetch .*--profile tiny-hub .*NIST"
    ):
        packing.make_pack("mnist", copied)
    assert not list((copied / "tiny-hub").glob("*.npz"))


def test_half_a_file_is_named(copied):
    one = parquet(copied, "ylecun/mnist", "train")[1]
    one.write_bytes(one.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"cut short: datasets/ylecun/mnist/mnist/train-00001-of-00002\.parquet"):
        tiny.asset_files(["mnist"], "tiny-hub")
    with pytest.raises(ValueError, match=r"train-00001-of-00002\.parquet cannot be read .* --profile tiny-hub"):
        packing.make_pack("mnist", copied)
    one.unlink()
    with pytest.raises(CheckpointError, match="number 00001 is missing"):
        tiny.asset_files(["mnist"], "tiny-hub")
    pack = packing.make_pack("eurosat", copied)
    pack.write_bytes(pack.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"eurosat_jpg128\.npz is cut short"):
        tiny.asset_files(["eurosat"], "tiny-hub")
    pack.unlink()
    assert tiny.asset_files(["eurosat"], "tiny-hub")["eurosat"] == pack
    weights = copied / MODEL / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="cut short: .*model.safetensors\nFetch them: .* --only models"):
        tiny.asset_files(["eurosat"], "tiny-hub")


def test_an_image_that_is_none_is_named(copied):
    spec = clip.TASKS["MNIST"]
    for path in parquet(copied, spec.repo, "test"):
        path.unlink()
    write_split(copied, spec, "test", [png(9)] * 9 + [png(9)[:40]], list(range(10)))
    with pytest.raises(ValueError, match=r"row 9 of .*test-00000-of-00001\.parquet"):
        packing.make_pack("mnist", copied)


def test_a_disk_too_small_is_told_first_and_a_full_one_leaves_nothing(copied, monkeypatch):
    usage = shutil.disk_usage(copied)
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda path: usage._replace(free=1000))
        patch.setattr(packing, "read_images", None)  # nothing is decoded
        with pytest.raises(ValueError, match=r"mnist_jpg128\.npz needs .* GB"):
            packing.make_pack("mnist", copied)

    def full(file, **_):
        file.write(b"PK")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", full)
        with pytest.raises(ValueError, match=r"could not be written \(No space left on device\)"):
            packing.make_pack("mnist", copied)
    assert {path.name for path in (copied / "tiny-hub").iterdir()} <= {".mnist.lock"}


def test_an_interrupted_preparation_goes_on_with_the_next_data_set(copied, monkeypatch):
    decode, seen = packing.decode, []

    def interrupted(item, *rest, **options):
        seen.append(item[0])
        if len(seen) == 85:  # the second data set's fifth image
            raise KeyboardInterrupt
        return decode(item, *rest, **options)

    monkeypatch.setattr(packing, "decode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tiny.asset_files(PAIR, "tiny-hub")
    assert [path.name for path in (copied / "tiny-hub").glob("*.npz")] == ["mnist_jpg128.npz"]
    seen.clear()
    monkeypatch.setattr(packing, "decode", lambda item, *rest, **o: seen.append(item[0]) or decode(item, *rest, **o))
    assert len(tiny.asset_files(PAIR, "tiny-hub")) == 3
    assert len(seen) == 80 and all("eurosat" in where for where in seen)


@pytest.mark.parametrize(
    ("name", "changes", "named"),
    [
        ("vit_small_patch16_224", {"depth": 2}, r"cls_token, pos_embed, patch_embed\.proj\.weight"),
        ("vit_tiny_patch16_224", {"depth": 11}, r"blocks\.11\.norm1\.weight"),
        ("vit_tiny_patch16_224", {"reg_tokens": 1}, r"the positions are not those of a ViT-Ti/16"),
    ],
)
def test_weights_of_another_architecture_are_named_with_the_mend(copied, name, changes, named, capsys):
    put_vit(copied, name, **changes)
    assert built("mnist") == 2
    said = capsys.readouterr().err
    assert (
        "model.safetensors: the " in said
        and " are not those of a ViT-Ti/16" in said
        and "Delete it and run `adamerging fetch" in said
    )
    assert "vit_tiny_patch16_224.augreg_in21k_ft_in1k? " in said
    with pytest.raises(CheckpointError, match=named):
        tiny.pretrained_encoder(copied / MODEL / "model.safetensors", 32)


def test_the_tiny_profile_does_not_take_the_hubs_packs(copied):
    tiny.asset_files(["mnist"], "tiny-hub")
    with pytest.raises(CheckpointError, match=r"has no vit_tiny_p16_224\.npz, mnist\.npz: set ADAMERGING_ASSETS"):
        tiny.asset_files(["mnist"])
