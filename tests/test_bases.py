"""Base models through open_clip: the right activation or an error, from a file; never a silent substitute."""

from __future__ import annotations

import urllib.error

import pytest
import torch
from clips import clip, images, open_clip
from safetensors.torch import save_file

from adamerging_lib.checkpoints import load_base
from adamerging_lib.state import CheckpointError

SMALL = {
    "embed_dim": 6,
    "vision_cfg": {"layers": 2, "width": 16, "head_width": 8, "patch_size": 4, "image_size": 8},
    "text_cfg": {"context_length": 4, "vocab_size": 10, "width": 8, "heads": 2, "layers": 1},
}


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Configurations of a small CLIP, ``small`` and ``small-quickgelu``, known to open_clip while a test runs."""
    configs = open_clip.factory._MODEL_CONFIGS
    monkeypatch.setitem(configs, "small", SMALL)
    monkeypatch.setitem(configs, "small-quickgelu", SMALL | {"quick_gelu": True})
    save_file(clip().state_dict(), tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors"


@pytest.mark.parametrize(("config", "activation"), [("small-quickgelu", "quick_gelu"), ("small", "gelu")])
def test_weights_from_a_file_under_the_activation_they_were_trained_with(small, config, activation):
    model = load_base(config, small, activation=activation)
    expected = clip(quick_gelu=activation == "quick_gelu")
    assert not model.training
    with torch.no_grad():
        assert torch.equal(model.encode_image(images()), expected.encode_image(images()))
        words = torch.tensor([[1, 2, 9, 0]])
        assert torch.equal(model.encode_text(words), expected.encode_text(words))


@pytest.mark.parametrize("arch", ["ViT-B-32", "ViT-B-16", "ViT-L-14"])
def test_the_wrong_activation_is_an_error_before_anything_is_fetched(arch):
    with pytest.raises(CheckpointError, match=rf"'{arch}' has gelu, .* with quick_gelu: use '{arch}-quickgelu'"):
        load_base(arch)
    with pytest.raises(CheckpointError, match=rf"'{arch}-quickgelu' has quick_gelu, .* with gelu: use '{arch}'"):
        load_base(f"{arch}-quickgelu", "laion400m_e32", activation="gelu")


def test_weights_known_to_need_the_other_activation_are_refused(small, monkeypatch):
    """What open_clip only warns of: its own table says what each of its weights was trained with."""
    known = {"quick_gelu": False, "file": str(small)}
    monkeypatch.setattr(open_clip.factory, "get_pretrained_cfg", lambda config, weights: known)
    with pytest.raises(CheckpointError, match="QuickGELU mismatch .*Choose the configuration"):
        load_base("small-quickgelu", "theirs")
    known["quick_gelu"] = True
    load_base("small-quickgelu", "theirs")


def test_offline_it_says_what_to_fetch(monkeypatch, tmp_path):
    def offline(*_, **__):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(open_clip.factory, "download_pretrained", offline)
    with pytest.raises(CheckpointError, match=r"Name or service not known.*path of a file such as .*clip_224\.openai"):
        load_base("ViT-B-32-quickgelu", cache=tmp_path)


def test_mistakes(small, tmp_path):
    for config, weights, message in [
        ("small-quickgel", small, "no configuration 'small-quickgel': did you mean 'small-quickgelu'"),
        ("-", small, "no configuration '-': open_clip.list_models"),
        ("RN50-quickgelu", "openai", "the vision tower of 'RN50-quickgelu' is no plain ViT"),
        ("small-quickgelu", tmp_path / "none.pt", "none.pt' of 'small-quickgelu' cannot be loaded"),
        ("small-quickgelu", "openai", "weights 'openai' of 'small-quickgelu' cannot be loaded"),
    ]:
        with pytest.raises(CheckpointError, match=message):
            load_base(config, weights)
    small.write_bytes(small.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="weights.safetensors' of 'small-quickgelu' cannot be loaded"):
        load_base("small-quickgelu", small)
    save_file(clip(width=24).state_dict(), small)
    with pytest.raises(CheckpointError, match="cannot be loaded .*size mismatch|cannot be loaded .*Error"):
        load_base("small-quickgelu", small)
