"""Zero-shot heads against the formula, one class at a time."""

import pytest
import torch
from torch.nn.functional import normalize

from adamerging_lib.heads import zero_shot_head


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
