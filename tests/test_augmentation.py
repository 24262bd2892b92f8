"""Random views: nothing changes where nothing may, mirrors and turns are exact, and a seed gives the same views."""

import pytest
import torch

from adamerging_lib.worlds.augmentation import Augmentation, augment

STILL = {"zoom": 1.0, "shift": 0.0, "rotation": 0.0, "colour": 0.0}


@pytest.fixture
def images():
    return torch.rand(40, 3, 12, 12, generator=torch.Generator().manual_seed(0)) * 2 - 1


def views(images, seed=0, **plan):
    return augment(images, Augmentation(**plan), torch.Generator().manual_seed(seed))


def which(views, image, candidates):
    """The one candidate that each view equals."""
    return [
        next(name for name, other in candidates.items() if torch.allclose(view, other, atol=1e-4)) for view in views
    ]


def test_nothing_changes_where_nothing_may(images):
    assert torch.allclose(views(images, **STILL), images, atol=1e-5)


def test_a_mirror_exchanges_left_and_right_of_about_half(images):
    image = images[0]
    found = which(
        views(image.expand(40, -1, -1, -1), mirror=True, **STILL), image, {"as is": image, "m": image.flip(2)}
    )
    assert 10 < found.count("m") < 30


def test_turns_reach_all_eight_positions(images):
    image = images[0]
    eight = {(k, m): (image.flip(2) if m else image).rot90(k, (1, 2)) for k in range(4) for m in (False, True)}
    assert set(which(views(image.expand(80, -1, -1, -1), turn=True, **STILL), image, eight)) == set(eight)


def test_without_mirror_an_upright_image_stays_so():
    arrow = torch.full((60, 3, 24, 24), -1.0)
    arrow[:, :, :12, :12] = 1.0  # bright above left
    seen = views(arrow, colour=0.0).mean(1)
    corners = torch.stack([seen[:, :8, :8], seen[:, :8, -8:], seen[:, -8:, :8], seen[:, -8:, -8:]], 1).mean((2, 3))
    assert (corners.argmax(1) == 0).all()


def test_crops_are_zoomed_and_inside_the_plan():
    ramp = torch.linspace(-1, 1, 48).expand(200, 3, 48, 48)
    seen = views(ramp, zoom=0.5, shift=0.0, rotation=0.0, colour=0.0)
    spans = (seen[:, 0, 0, -1] - seen[:, 0, 0, 0]) / 2
    assert 0.47 < spans.min() < 0.6 and 0.9 < spans.max() <= 1.0
    assert seen.min() >= -1.0 and seen.max() <= 1.0


def test_colours_move_by_no_more_than_the_plan(images):
    grey = torch.full((300, 3, 8, 8), 0.5)
    seen = views(grey, **{**STILL, "colour": 0.2})
    assert seen.min() >= 0.5 * 0.8 - 0.2 - 1e-6 and seen.max() <= 0.5 * 1.2 + 0.2 + 1e-6
    assert (seen - seen[:, :1]).abs().max() < 1e-6  # grey has no colour to saturate
    assert seen.amin() < 0.35 and seen.amax() > 0.65
    assert not torch.allclose(views(images, **{**STILL, "colour": 0.2}), images, atol=0.05)


def test_a_seed_gives_the_same_views_and_images_differ_from_each_other(images):
    assert torch.equal(views(images, seed=3), views(images, seed=3))
    assert not torch.equal(views(images, seed=3), views(images, seed=4))
    same = views(images[:1].expand(4, -1, -1, -1))
    assert not torch.allclose(same[0], same[1], atol=1e-2)
