"""Every method on a ViT in timm's classes, as tiny profiles have it: other tensor names; q, k and v in one Linear."""

import pytest
import torch
import toy
from short import EVERY, run

import adamerging_lib as am
from adamerging_lib.runtime.compat import import_torchvision


@pytest.fixture(scope="module")
def timm_suite():
    import_torchvision()
    from timm.models.vision_transformer import VisionTransformer

    encoder = VisionTransformer(img_size=8, patch_size=4, embed_dim=8, depth=2, num_heads=2, num_classes=0)
    return toy.suite(seed=0, encoder=encoder)


@pytest.mark.parametrize("method", EVERY)
def test_method_runs_and_is_measured(method, timm_suite):
    merged = run(method, timm_suite)
    for task in timm_suite.tasks:
        state = merged.state_dict(task)
        assert {key: t.shape for key, t in state.items()} == {k: t.shape for k, t in timm_suite.pretrained.items()}
    assert am.evaluate(timm_suite, merged)["accuracy"].between(0, 100).all()
    if method not in ("zero_shot", "individual"):
        moved = [key for key, t in timm_suite.pretrained.items() if not torch.equal(merged.state_dict("alpha")[key], t)]
        assert any("attn.qkv" in key for key in moved)
        # WEMoE mixes these anew for every image.
        assert method == "wemoe" or any("mlp.fc" in key for key in moved)


def test_rows_are_found(timm_suite):
    tv = timm_suite.task_vectors()
    assert tv.rows("block").names == ("embeddings", "block_0", "block_1", "head")
    assert "blocks.1.attn.qkv" in tv.rows("module").names and len(tv.rows("tensor").names) == len(timm_suite.pretrained)
