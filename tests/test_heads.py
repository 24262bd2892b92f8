"""Zero-shot heads against the formula, one class at a time."""

import pytest
import torch
from torch.nn.functional import normalize

from adamerging_lib.worlds.heads import prototype_head, zero_shot_head


def encode(prompts):
    return torch.stack([torch.tensor([len(p), p.count("a") + 1.0, p.count("e") - 0.5]) for p in prompts])


def test_head_is_the_renormalised_mean_of_normalised_prompts_times_the_scale():
    classes, templates = ("cat", "bee", "antelope"), ("a {}.", "the photo of a {} there.")
    head = zero_shot_head(classes, templates, encode, 7.0)
    assert head.shape == (3, 3)
    for row, name in enumerate(classes):
        features = [normalize(encode([t.format(name)])[0], dim=0) for t in templates]
        assert torch.allclose(head[row], 7.0 * normalize(sum(features) / 2, dim=0), atol=1e-6)
    assert torch.allclose(head.norm(dim=1), torch.full((3,), 7.0))


def test_unusable_prompts_are_refused():
    with pytest.raises(ValueError, match="at least one class name"):
        zero_shot_head((), ("a {}",), encode, 1.0)
    with pytest.raises(ValueError, match="at least one class name and one template"):
        zero_shot_head(("a",), (), encode, 1.0)
    with pytest.raises(ValueError, match="'a photo' has no {}"):
        zero_shot_head(("a",), ("a photo",), encode, 1.0)


def test_a_prototype_is_the_renormalised_mean_of_normalised_features_times_the_scale():
    features = torch.randn(7, 4, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 8)[:, None]
    labels = torch.tensor([2, 0, 1, 2, 0, 2, 1])
    head = prototype_head(features, labels, 3, 5.0)
    for label in range(3):
        unit = [f / f.norm() for f, y in zip(features, labels, strict=True) if y == label]
        assert torch.allclose(head[label], 5.0 * normalize(sum(unit), dim=0), atol=1e-6)
    with pytest.raises(ValueError, match=r"classes \[3\] of 4 have no training image"):
        prototype_head(features, labels, 4, 5.0)
