"""Corruptions: seeded image by image, of the published strength, and true to what each of them claims to do."""

import numpy as np
import pytest
import toy
from PIL import Image

from adamerging_lib.worlds import corruptions
from adamerging_lib.worlds.corruptions import CORRUPTIONS, FAMILIES, SEVERITIES, corrupt, corrupt_images

CHANCE = ("motion_blur", "impulse_noise", "gaussian_noise", "spatter")


def pictures(n=6, size=32):
    """Smooth random pictures, so that blurring and pixelating change a part of them only."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(40, 216, (n, 4, 4, 3), dtype=np.uint8)
    grown = [np.asarray(Image.fromarray(c).resize((size, size), Image.Resampling.BICUBIC)) for c in coarse]
    return np.stack(grown).transpose(0, 3, 1, 2)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_an_image_depends_on_itself_and_its_index_only(name):
    images = pictures()
    before = np.random.get_state()[1].copy()
    drawn = corrupt_images(images, name, 3, seed=1, task="signs")
    assert drawn.shape == images.shape and drawn.dtype == np.uint8 and not np.array_equal(drawn, images)
    assert np.array_equal(drawn[:2], corrupt_images(images[:2], name, 3, seed=1, task="signs"))
    assert np.array_equal(np.random.get_state()[1], before)
    others = [
        corrupt_images(images, name, 3, seed=2, task="signs"),
        corrupt_images(images, name, 3, seed=1, task="digits"),
    ]
    assert all(np.array_equal(drawn, other) != (name in CHANCE) for other in others)
    same = np.repeat(images[:1], 2, axis=0)
    first, second = corrupt_images(same, name, 3)
    assert np.array_equal(first, second) != (name in CHANCE)


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("size", [32, 224])
def test_severities_are_ordered(name, size):
    images = pictures(n=8 if size == 32 else 2, size=size)
    change = [np.abs(corrupt_images(images, name, s).astype(float) - images).mean() for s in SEVERITIES]
    assert min(change) > 0
    if name == "spatter":  # water first, then mud: two scales
        change = change[3:]
    if (name, size) == ("pixelate", 32):  # 30 pixels of 32 fall out of step more than 28 do
        change = change[1:]
    assert change == sorted(change), change


def test_gaussian_noise_has_the_published_deviation():
    grey = np.full((4, 3, 64, 64), 128, np.uint8)
    for severity, deviation in zip(SEVERITIES, (0.04, 0.06, 0.08, 0.09, 0.10), strict=True):
        noise = corrupt_images(grey, "gaussian_noise", severity) - 128.0
        assert noise.std() == pytest.approx(255 * deviation, rel=0.02)
        assert noise.mean() == pytest.approx(-0.5, abs=0.5)  # cut off, not rounded


def test_impulse_noise_is_salt_and_pepper_on_the_published_share():
    grey = np.full((4, 3, 64, 64), 100, np.uint8)
    for severity, share in zip(SEVERITIES, (0.01, 0.02, 0.03, 0.05, 0.07), strict=True):
        drawn = corrupt_images(grey, "impulse_noise", severity)
        assert set(np.unique(drawn)) == {0, 100, 255}
        assert (drawn != 100).mean() == pytest.approx(share, rel=0.1)
        assert (drawn == 255).sum() == pytest.approx((drawn == 0).sum(), rel=0.2)


def test_motion_blur_draws_a_streak_and_keeps_the_light():
    point = np.zeros((20, 3, 65, 65), np.uint8)
    point[:, :, 32, 32] = 255
    for drawn in corrupt_images(point, "motion_blur", 5)[:, 0].astype(float):
        rows, columns = np.nonzero(drawn)
        # One-sided: from the point to the left, at most 45° up or down.
        assert columns.max() == 32 and 32 - columns.min() <= 18
        assert (np.abs(rows - 32) <= np.abs(columns - 32) + 0.5).all()
        assert drawn[31:34, 31:33].max() == drawn.max() and drawn.sum() == pytest.approx(255, abs=len(rows))
    flat = np.full((3, 3, 32, 32), 77, np.uint8)
    assert all((corrupt_images(flat, "motion_blur", severity) == 77).all() for severity in SEVERITIES)


def test_contrast_pulls_to_the_mean_of_each_channel():
    images = pictures()
    drawn = corrupt_images(images, "contrast", 4).astype(float)
    mean = images.mean(axis=(2, 3), keepdims=True)
    np.testing.assert_allclose(drawn, (images - mean) * 0.3 + mean, atol=1)


def test_pixelate_and_jpeg_are_pillows():
    image = pictures(1)[0]
    picture = Image.fromarray(image.transpose(1, 2, 0))
    fewer = picture.resize((20, 20), Image.Resampling.BOX).resize((32, 32), Image.Resampling.BOX)
    drawn = corrupt_images(image[None], "pixelate", 5)[0]
    assert np.array_equal(drawn.transpose(1, 2, 0), np.asarray(fewer))
    noisy = corrupt_images(image[None], "gaussian_noise", 5)
    losses = [np.abs(corrupt_images(noisy, "jpeg_compression", s).astype(float) - noisy).mean() for s in (1, 5)]
    assert 0 < losses[0] < losses[1] < 40


def test_spatter_is_pale_water_and_then_mud():
    dark = np.full((10, 3, 32, 32), 30, np.uint8)
    for severity in (1, 2, 3):
        red, green, blue = (corrupt_images(dark, "spatter", severity).astype(int) - 30).transpose(1, 0, 2, 3)
        assert red.min() == 0 and np.array_equal(green, blue)
        wet = red > 10
        assert 0.001 < wet.mean() < 0.3
        np.testing.assert_allclose(red[wet] / green[wet], 175 / 238, atol=0.1)
    white = np.full((10, 3, 32, 32), 250, np.uint8)
    for severity in (4, 5):
        drawn = corrupt_images(white, "spatter", severity).transpose(0, 2, 3, 1).reshape(-1, 3).astype(int)
        muddy = drawn[:, 0] < 250
        assert 0.005 < muddy.mean() < 0.3
        assert (np.diff(drawn[muddy], axis=1) < 0).all()  # red above green above blue
        assert drawn[~muddy].min() == 250


def test_a_picture_without_a_drop_stays_as_it_is():
    dry = (0.1, 0.01, 0.7, 0.7, 0.5, False)
    image = pictures(1)[0].transpose(1, 2, 0)
    assert np.array_equal(corruptions._spatter(image, dry, np.random.default_rng(0)), image)
    flooded = (0.9, 0.01, 0.7, 0.7, 0.5, False)
    assert np.isfinite(corruptions._spatter(image, flooded, np.random.default_rng(0))).all()


def test_families_are_one_at_32_pixels_and_part_at_larger_sizes():
    small, large = pictures(), pictures(n=2, size=224)
    for name in CORRUPTIONS:
        assert np.array_equal(corrupt_images(small, name, 2), corrupt_images(small, name, 2, family="published")), name
        change = {f: np.abs(corrupt_images(large, name, 2, family=f).astype(float) - large).mean() for f in FAMILIES}
        weaker = change["published"] < change["native"]
        assert weaker != (name == "pixelate"), name
    # CIFAR-10-C's constants up to 84 px, ImageNet-C's from 85.
    deviation = {s: corrupt_images(np.full((1, 3, s, s), 128, np.uint8), "gaussian_noise", 1).std() for s in (84, 85)}
    assert deviation[84] == pytest.approx(255 * 0.04, rel=0.05) and deviation[85] == pytest.approx(255 * 0.08, rel=0.05)


def test_published_pixelate_leaves_32_pixels():
    noise = np.random.default_rng(0).integers(0, 256, (1, 3, 128, 128), dtype=np.uint8)
    drawn = corrupt_images(noise, "pixelate", 1, family="published")
    native = corrupt_images(noise, "pixelate", 1)
    assert drawn.std() < 0.4 * noise.std() < native.std()


def test_corrupt_replaces_test_images_only_and_draws_once(monkeypatch):
    suite = toy.suite()
    shifted = corrupt(suite, "gaussian_noise", 2, seed=3)
    assert shifted.heads is suite.heads and shifted.experts is suite.experts and shifted.train is suite.train
    for task, data in suite.test.items():
        assert shifted.test[task].labels is data.labels and shifted.test[task].classes == data.classes
        drawn = corrupt_images(data.images.numpy(), "gaussian_noise", 2, seed=3, task=task)
        assert np.array_equal(shifted.test[task].images.numpy(), drawn)
    monkeypatch.setattr(corruptions, "_check", lambda *_: None)
    monkeypatch.setitem(corruptions._DRAW, "gaussian_noise", None)  # drawing again would fail
    again = corrupt(suite, "gaussian_noise", 2, seed=3)
    assert all(np.array_equal(again.test[task].images, shifted.test[task].images) for task in suite.tasks)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("gausian_noise", 1), "did you mean 'gaussian_noise'.*motion_blur, impulse_noise"),
        (("contrast", 0), "severity 0 is unknown; use 1"),
        (("contrast", 6), "severity 6 is unknown"),
    ],
)
def test_unknown_names_and_severities_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        corrupt(toy.suite(), *arguments)


def test_other_families_and_images_are_refused():
    with pytest.raises(ValueError, match="family 'imagenet' is unknown"):
        corrupt(toy.suite(), "contrast", 1, family="imagenet")
    with pytest.raises(ValueError, match=r"float64 \[1, 3, 8, 8\]: give uint8"):
        corrupt_images(np.zeros((1, 3, 8, 8)), "contrast", 1)
