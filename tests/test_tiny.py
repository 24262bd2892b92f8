"""The tiny profiles on made-up packs: encoder, heads, suite, and a zoo that goes on where it was cut off."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import transformers
from filelock import FileLock
from madepacks import vit_arrays, write_arrays, write_assets
from torch.nn import functional as F

import adamerging_lib as am
from adamerging_lib import cli
from adamerging_lib.methods import individual, traditional_mtl, zero_shot
from adamerging_lib.runtime.compat import import_torchvision
from adamerging_lib.state import CheckpointError
from adamerging_lib.worlds import profiles, training
from adamerging_lib.worlds.encoders import tiny_state, tiny_vit
from adamerging_lib.worlds.mini.stages import Schedule
from adamerging_lib.worlds.roles import STAND_IN, TINY_STAND_IN, same_role
from adamerging_lib.worlds.tiny import build as tiny_build
from adamerging_lib.worlds.tiny import experts as zoo
from adamerging_lib.worlds.tiny import packs
from adamerging_lib.worlds.tiny import world as tiny
from adamerging_lib.worlds.tiny.tasks import SETTINGS, TASKS, Setting

import_torchvision()  # transformers imports it, too
PAIR = ("eurosat", "mnist")
SMALL = Schedule(steps=4, lr=1e-3, batch_size=6, warmup=1)


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Assets of two tasks, four steps of training at 32 px, and a zoo of the test's own."""
    write_assets(tmp_path / "assets", PAIR)
    monkeypatch.setenv("ADAMERGING_ASSETS", str(tmp_path / "assets"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setitem(SETTINGS, "tiny", Setting(32))
    monkeypatch.setitem(SETTINGS, "tiny-short", Setting(32, shorter=2))
    monkeypatch.setattr(zoo, "EXPERT", SMALL)
    monkeypatch.setattr(tiny_build, "SAVE_EVERY", 1)
    return tmp_path


def built(*names):
    return cli.main(["zoo", "--profile", "tiny", "--models", ",".join(names), "--device", "cpu"])


def folders(world):
    return {path.name.partition("-")[0]: path for path in (world / "cache" / "adamerging" / "zoo").glob("*/*")}


def theirs(model: transformers.ViTModel) -> dict[str, np.ndarray]:
    """A ViT of transformers under the names of the upstream file, which was made from one."""
    arrays = {}
    for name, tensor in model.state_dict().items():
        for old, new in (
            ("embeddings.patch_embeddings.projection", "patch_embed"), ("embeddings.position_embeddings", "pos_embed"),
            ("embeddings.", ""), ("encoder.layer.", "blocks."), ("layers.", "blocks."), ("layernorm_before", "norm1"),
            ("layernorm_after", "norm2"), ("layernorm", "norm"),
            ("attention.attention.query", "attn.q"), ("attention.attention.key", "attn.k"),
            ("attention.attention.value", "attn.v"), ("attention.output.dense", "attn.proj"),
            ("attention.q_proj", "attn.q"), ("attention.k_proj", "attn.k"), ("attention.v_proj", "attn.v"),
            ("attention.o_proj", "attn.proj"), ("intermediate.dense", "mlp.fc1"), ("output.dense", "mlp.fc2"),
        ):  # fmt: skip
            name = name.replace(old, new)
        arrays[name] = tensor.numpy()
    return arrays


def test_features_are_those_of_transformers_vit():
    config = transformers.ViTConfig(
        hidden_size=192, num_hidden_layers=12, num_attention_heads=3, intermediate_size=768, layer_norm_eps=1e-12
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.ViTModel(config, add_pooling_layer=False).eval()
        for parameter in model.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)  # biases and positions away from zero
        images = torch.randn(2, 3, 224, 224)
    encoder = tiny_vit(224).eval()
    encoder.load_state_dict(tiny_state(theirs(model), 224))
    with torch.no_grad():
        expected = model(images).last_hidden_state[:, 0]
        assert torch.allclose(encoder(images), expected, atol=1e-3)
        assert expected.std() > 0.3


def test_positions_are_interpolated_and_the_class_tokens_kept():
    arrays = vit_arrays()
    full = torch.from_numpy(arrays["pos_embed"])
    state = tiny_state(arrays, 96)
    grid = full[:, 1:].view(1, 14, 14, 192).permute(0, 3, 1, 2)
    expected = F.interpolate(grid, (6, 6), mode="bicubic", antialias=True).permute(0, 2, 3, 1).reshape(1, 36, 192)
    assert torch.equal(state["pos_embed"][:, :1], full[:, :1])
    assert torch.allclose(state["pos_embed"][:, 1:], expected, atol=1e-6)
    assert torch.equal(tiny_state(arrays, 224)["pos_embed"], full)


def test_arrays_that_are_no_vit_tiny_are_named(world):
    arrays = vit_arrays()
    for change, named in (
        ({"blocks.3.attn.k.bias": None}, r"blocks\.3\.attn\.qkv\.bias"),
        ({"norm.weight": np.zeros(384, np.float32)}, r"norm\.weight"),
        ({"blocks.12.norm1.bias": np.zeros(192, np.float32)}, r"blocks\.12\.norm1\.bias"),
    ):
        changed = {name: value for name, value in (arrays | change).items() if value is not None}
        np.savez(path := world / "vit_tiny_p16_224.npz", **changed)
        with pytest.raises(CheckpointError, match=rf"vit_tiny_p16_224\.npz: .*{named}"):
            tiny.pretrained_encoder(path, 64)


def test_without_assets_one_sentence_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("ADAMERGING_ASSETS", str(tmp_path))
    with pytest.raises(CheckpointError, match=r"no vit_tiny_p16_224\.npz, mnist\.npz: set ADAMERGING_ASSETS") as caught:
        am.load_suite("tiny", tasks=["mnist"])
    assert str(tmp_path) in str(caught.value) and packs.__name__ in str(caught.value)


def test_untrained_experts_are_named_with_the_command(world):
    with pytest.raises(CheckpointError, match="'eurosat' .* is not trained yet: run `adamerging zoo --profile tiny`"):
        am.load_suite("tiny", tasks=PAIR)


def test_the_zoo_becomes_a_suite_as_accurate_as_it_says(world, capsys):
    assert built(*PAIR) == 0
    assert capsys.readouterr().out.count("4 steps in 0 min") == 2
    suite = am.load_suite("tiny", tasks=PAIR[::-1])
    assert suite.tasks == ("mnist", "eurosat") and suite.profile == "tiny" and suite.joint is None
    assert suite.test["mnist"].images.shape == (9, 3, 32, 32) and len(suite.training()["eurosat"]) == 24
    for task, folder in folders(world).items():
        manifest = json.loads((folder / "manifest.json").read_text())
        assert manifest["recipe"]["training"]["steps"] == 4 and set(manifest["recipe"]["inputs"]) == {
            "pretrained",
            task,
        }
        for merged in (zero_shot(suite.task_vectors()), individual(suite)):
            measured = am.evaluate(suite, merged).set_index("task")["accuracy"][task]
            assert manifest["accuracies"][merged.method][task] == pytest.approx(measured, abs=0.01)
        assert any(not torch.equal(suite.experts[task][key], suite.pretrained[key]) for key in suite.pretrained)
        assert not (folder / "training.pt").exists()
    assert set(suite.assets) == {
        "vit_tiny_p16_224_upstream.npz", "eurosat.npz", "mnist_3class_jpg40.npz",
        "tiny/eurosat.safetensors", "tiny/mnist.safetensors",
    }  # fmt: skip


def test_shorter_training_is_another_world_of_the_same_images(world, capsys):
    assert built("mnist") == 0 and cli.main(["zoo", "--profile", "tiny-short", "--models", "mnist"]) == 0
    assert "4 steps" in (told := capsys.readouterr().out) and "2 steps" in told
    long, short = (am.load_suite(name, tasks=["mnist"]) for name in ("tiny", "tiny-short"))
    assert short.profile == "tiny-short" and torch.equal(short.heads["mnist"], long.heads["mnist"])
    assert any(not torch.equal(tensor, long.experts["mnist"][key]) for key, tensor in short.experts["mnist"].items())
    assert "experts trained for 1/2 of the steps" in profiles._tiny("tiny-short", "").summary


def test_heads_are_prototypes_of_the_training_images(world):
    files = tiny.asset_files(["eurosat"])
    encoder = tiny.pretrained_encoder(files["pretrained"], 32)
    head, data = (
        tiny.tiny_head("eurosat", files, 32, encoder),
        tiny.tiny_images("eurosat", "train", files["eurosat"], 32),
    )
    assert torch.allclose(head.norm(dim=1), torch.full((3,), tiny.LOGIT_SCALE))
    with torch.no_grad():
        features = F.normalize(encoder(data.images.float() / 127.5 - 1), dim=-1)
    for place in range(3):
        mean = features[data.labels == place].mean(0)
        assert F.cosine_similarity(mean, head[place], dim=0) > 0.99999


def test_a_cut_off_training_goes_on_and_ends_the_same(world, monkeypatch):
    assert built("mnist") == 0
    whole = am.load_suite("tiny", tasks=["mnist"]).experts["mnist"]
    monkeypatch.setenv("XDG_CACHE_HOME", str(world / "other"))
    seen, loss = [], training.head_loss

    def cut_off(*arguments):
        seen.append(1)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return loss(*arguments)

    monkeypatch.setattr(training, "head_loss", cut_off)
    assert built("mnist") == 130
    with pytest.raises(CheckpointError, match="not trained yet"):
        am.load_suite("tiny", tasks=["mnist"])
    assert built("mnist") == 0 and len(seen) == 5  # two steps, the third cut off, then the third and fourth
    again = am.load_suite("tiny", tasks=["mnist"]).experts["mnist"]
    assert all(torch.equal(whole[key], again[key]) for key in whole)
    assert built("mnist") == 0 and len(seen) == 5  # it is done


def test_a_model_that_another_process_trains_is_left_to_it(world, capsys):
    files = tiny.asset_files(["mnist"])
    recipe = zoo.plan("mnist", "tiny", tiny.LOGIT_SCALE, {part: tiny.digest(path) for part, path in files.items()})
    folder = zoo.model_folder(recipe)
    folder.mkdir(parents=True)
    with FileLock(folder / "training.lock"):
        assert built("mnist") == 0
    assert "mnist: another process is at it" in capsys.readouterr().out and not (folder / "manifest.json").exists()


def test_a_damaged_model_is_named_and_another_pack_means_another_training(world):
    assert built(*PAIR) == 0
    path = folders(world)["mnist"] / "model.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    with pytest.raises(CheckpointError, match=r"mnist-\w+/model.safetensors is missing or not what its manifest says"):
        am.load_suite("tiny", tasks=PAIR)
    write_arrays(world / "assets" / "eurosat.npz", seed=99)
    with pytest.raises(CheckpointError, match="'eurosat' .* not trained yet"):
        am.load_suite("tiny", tasks=["eurosat"])


def test_the_joint_model_is_trained_on_all_eight(world, monkeypatch):
    monkeypatch.setattr(zoo, "JOINT", Schedule(steps=2, lr=1e-3, batch_size=2, warmup=1))
    monkeypatch.setattr(zoo, "EXPERT", Schedule(steps=1, lr=1e-3, batch_size=2, warmup=1))
    with pytest.raises(CheckpointError, match=r"has no scene15\.npz, cars\.npz"):
        tiny_build.build("tiny", ["joint"])
    write_assets(world / "eight", tuple(TASKS))
    monkeypatch.setenv("ADAMERGING_ASSETS", str(world / "eight"))
    assert built("mnist") == 0 and am.load_suite("tiny", tasks=["mnist"]).joint is None
    assert built("joint") == 0
    suite = am.load_suite("tiny", tasks=["mnist"])
    assert am.evaluate(suite, traditional_mtl(suite)).n.sum() == 9 and "tiny/joint.safetensors" in suite.assets


def test_plans_keep_their_digests():
    """What machines have trained is found by these: another digest would throw hours of training away."""
    digests = {part: f"{number:064x}" for number, part in enumerate(("pretrained", *TASKS))}
    names = {
        name: [zoo.model_folder(zoo.plan(part, name, 30.0, digests)).name for part in ("scene15", "cars", "joint")]
        for name in ("tiny-64", "tiny", "tiny-128")
    }
    assert names == {
        "tiny-64": ["scene15-c43405dd35f5", "cars-09dbc994de74", "joint-2104753a0119"],
        "tiny": ["scene15-0117e1edf1ec", "cars-43292be2f739", "joint-e100afe9aa0d"],
        "tiny-128": ["scene15-f569c40d423a", "cars-bcafd387e86c", "joint-84b40a602dd2"],
    }


def test_the_command_says_what_it_does_not_know(world, capsys):
    assert built("mnits") == 2
    assert "no model 'mnits': did you mean 'mnist'?" in capsys.readouterr().err
    assert cli.main(["zoo", "--profile", "mini", "--models", "digits"]) == 2


def test_tasks_have_the_roles_of_the_papers_and_of_the_mini_worlds():
    assert am.profile("tiny").tasks == tuple(TASKS) and same_role(STAND_IN, TASKS) == list(TINY_STAND_IN)
    assert [TASKS[name].stand_in for name in TINY_STAND_IN] == same_role(TINY_STAND_IN, am.profile("clip-b32").tasks)
    assert [name for name, task in TASKS.items() if task.views.mirror or task.views.turn] == [
        "scene15",
        "cars",
        "resisc45",
        "eurosat",
        "cifar10",
        "dtd",
    ]  # fmt: skip - a mirrored digit or sign is another one
