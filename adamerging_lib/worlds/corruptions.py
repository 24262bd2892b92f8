"""Seven corruptions of test images at five severities, seeded image by image: the shifts of the paper's Tables 4 and 7.

What is drawn follows Hendrycks and Dietterich 2019, with their constants. They made two sets of them: CIFAR-10-C's for
32 px and ImageNet-C's for 224 px. Two families are offered:

* ``native``: at the images' own resolution, with the set that was made for the nearer of 32 and 224 px.
* ``published``: what FusionBench published for the four tasks: CIFAR-10-C's constants at any resolution, and pixelate
  by way of 32 × 32 pixels however large the image is, which leaves next to nothing of a photograph of a car. At 32 px
  both families are the same.

No package draws them for us: `imagecorruptions` knows ImageNet-C's constants only, fails below 32 px and draws from
NumPy's global generator; the published scripts need ImageMagick.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import io
from collections.abc import Callable, Mapping

import numpy as np
import torch
from PIL import Image
from scipy import ndimage

from ..runtime.cache import cached, fingerprint_code
from ..runtime.values import one_of
from ..state import fingerprint
from ..suite import Suite

SEVERITIES = (1, 2, 3, 4, 5)
FAMILIES = ("native", "published")

# One entry per severity. Motion blur: radius, sigma. Spatter: mean, deviation and smoothing of the liquid, the level
# above which it shows, its strength (water) or smoothing (mud), and whether it is mud.
CIFAR_C: dict[str, tuple] = {
    "motion_blur": ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
    "impulse_noise": (0.01, 0.02, 0.03, 0.05, 0.07),
    "gaussian_noise": (0.04, 0.06, 0.08, 0.09, 0.10),
    "pixelate": (0.95, 0.9, 0.85, 0.75, 0.65),
    "spatter": (
        (0.62, 0.1, 0.7, 0.7, 0.5, False), (0.65, 0.1, 0.8, 0.7, 0.5, False), (0.65, 0.3, 1, 0.69, 0.5, False),
        (0.65, 0.1, 0.7, 0.69, 0.6, True), (0.65, 0.1, 0.5, 0.68, 0.6, True),
    ),
    "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),
    "jpeg_compression": (80, 65, 58, 50, 40),
}  # fmt: skip
IMAGENET_C: dict[str, tuple] = {
    "motion_blur": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    "impulse_noise": (0.03, 0.06, 0.09, 0.17, 0.27),
    "gaussian_noise": (0.08, 0.12, 0.18, 0.26, 0.38),
    "pixelate": (0.6, 0.5, 0.4, 0.3, 0.25),
    "spatter": (
        (0.65, 0.3, 4, 0.69, 0.6, False), (0.65, 0.3, 3, 0.68, 0.6, False), (0.65, 0.3, 2, 0.68, 0.5, False),
        (0.65, 0.3, 1, 0.65, 1.5, True), (0.67, 0.4, 1, 0.65, 1.5, True),
    ),
    "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),
    "jpeg_compression": (25, 18, 15, 10, 7),
}  # fmt: skip
CORRUPTIONS = tuple(CIFAR_C)
"""Names as in the published tables, in their order."""
_LAST_BITS = 1e-9  # grey levels; those of a blur are exact to about 1e-13
_MIDDLE = (32 * 224) ** 0.5  # 85 px: as far from 32 as from 224


def corrupt(suite: Suite, name: str, severity: int, seed: int = 0, *, family: str = "native") -> Suite:
    """The suite with its test images corrupted; labels, encoder, checkpoints and training images stay as they are.

    Arguments:
        suite: with clean test images.
        name: one of ``CORRUPTIONS``.
        severity: 1 to 5.
        seed: of noise, directions and drops; every image has chance of its own, by (seed, task, name, severity, index).
        family: ``native`` or ``published``, see the module.

    Raises:
        ValueError: for an unknown name, severity or family.
    """
    _check(name, severity, family)
    drawn_by = {library: importlib.metadata.version(library) for library in ("numpy", "scipy", "pillow")}
    test = {}
    for task, data in suite.test.items():

        def draw(task=task, images=data.images) -> tuple[dict[str, torch.Tensor], dict]:
            drawn = corrupt_images(images.numpy(), name, severity, seed=seed, task=task, family=family)
            return {"images": torch.from_numpy(drawn)}, {}

        parameters = {"task": task, "name": name, "severity": severity, "seed": seed, "family": family, **drawn_by}
        assets = {"images": fingerprint({"": data.images})}
        tensors, _ = cached("corrupted", parameters, assets, fingerprint_code(corrupt_images), draw)
        test[task] = dataclasses.replace(data, images=tensors["images"])
    return dataclasses.replace(suite, test=test)


def corrupt_images(
    images: np.ndarray, name: str, severity: int, *, seed: int = 0, task: str = "", family: str = "native"
) -> np.ndarray:
    """Corrupt images one by one.

    Arguments:
        images: uint8 ``[n, 3, height, width]``.
        name, severity, seed, family: as for `corrupt`.
        task: part of the seed.

    Returns:
        uint8 ``[n, 3, height, width]``; image i depends on nothing but itself and (seed, task, name, severity, i).

    Raises:
        ValueError: for an unknown name, severity or family, or images of another shape or type.
    """
    _check(name, severity, family)
    if images.ndim != 4 or images.shape[1] != 3 or images.dtype != np.uint8:
        raise ValueError(f"images are {images.dtype} {list(images.shape)}: give uint8 [n, 3, height, width]")
    small = family == "published" or min(images.shape[2:]) < _MIDDLE
    setting = (CIFAR_C if small else IMAGENET_C)[name][severity - 1]
    draw = _through_32_pixels if (family, name) == ("published", "pixelate") else _DRAW[name]
    drawn = np.empty_like(images)
    for index, image in enumerate(images):
        digest = hashlib.sha256(f"{seed}|{task}|{name}|{severity}|{index}".encode()).digest()
        rng = np.random.default_rng(int.from_bytes(digest[:16], "little"))
        # The published scripts cut grey levels off too, where rounding would be half a level brighter. A level
        # within rounding error of a whole number counts as whole, as in a flat area after blurring: on which side of it
        # the sum comes out depends on the processor.
        levels = np.clip(draw(image.transpose(1, 2, 0), setting, rng), 0, 255)
        drawn[index] = (levels + _LAST_BITS).astype(np.uint8).transpose(2, 0, 1)
    return drawn


def _check(name: str, severity: int, family: str) -> None:
    one_of("corruption", name, CORRUPTIONS)
    if severity not in SEVERITIES:
        raise ValueError(f"severity {severity!r} is unknown; use 1 (weak) to 5 (strong)")
    one_of("family", family, FAMILIES)


# Every corruption: uint8 [height, width, 3], its setting and a generator → grey levels, not yet clipped.


def _gaussian_noise(image: np.ndarray, deviation: float, rng: np.random.Generator) -> np.ndarray:
    return image + rng.normal(scale=255 * deviation, size=image.shape)


def _impulse_noise(image: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Salt or pepper, channel by channel."""
    hit, salt = rng.random(image.shape) <= share, rng.random(image.shape) <= 0.5
    return np.where(hit, np.where(salt, 255, 0), image)


def _motion_blur(image: np.ndarray, setting: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """ImageMagick's: half a Gaussian along a line from the pixel, up to 45° from the horizontal."""
    radius, sigma = setting
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    weights /= weights.sum()
    angle = np.deg2rad(rng.uniform(-45, 45))
    down, right = (np.ceil(steps * along - 0.5).astype(int) for along in (np.sin(angle), np.cos(angle)))
    edge, (height, width, _) = 2 * radius, image.shape
    padded = np.pad(image, ((edge, edge), (edge, edge), (0, 0)), mode="edge")
    return sum(
        weight * padded[edge + dy : edge + dy + height, edge + dx : edge + dx + width]
        for weight, dy, dx in zip(weights, down, right, strict=True)
    )


def _contrast(image: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    mean = image.mean(axis=(0, 1))
    return (image - mean) * share + mean


def _jpeg_compression(image: np.ndarray, quality: int, rng: np.random.Generator) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def _pixelate(image: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    picture = Image.fromarray(image)
    fewer = picture.resize((int(picture.width * share), int(picture.height * share)), Image.Resampling.BOX)
    return np.asarray(fewer.resize(picture.size, Image.Resampling.BOX))


def _through_32_pixels(image: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Pixelate as published: 32 × 32 pixels at most, brought to size as CLIP's own preparation does."""
    fewer = Image.fromarray(image).resize((int(32 * share), int(32 * share)), Image.Resampling.BOX)
    published = fewer.resize((32, 32), Image.Resampling.BOX)
    return np.asarray(published.resize((image.shape[1], image.shape[0]), Image.Resampling.BICUBIC))


def _spatter(image: np.ndarray, setting: tuple, rng: np.random.Generator) -> np.ndarray:
    """Drops of pale water (severities 1 to 3) or of mud (4 and 5) where smoothed noise is high."""
    mean, deviation, smoothing, level, strength, mud = setting
    liquid = ndimage.gaussian_filter(rng.normal(mean, deviation, image.shape[:2]), smoothing, mode="nearest")
    if mud:
        cover = ndimage.gaussian_filter((liquid > level).astype(float), strength, mode="nearest")
        cover[cover < 0.8] = 0
        return image * (1 - cover[..., None]) + cover[..., None] * (63, 42, 20)
    liquid = np.clip(255 * np.where(liquid < level, 0, liquid), 0, 255).astype(np.uint8)
    shine = liquid * _relief(liquid > 0)
    if not shine.any():  # no drop fell on this picture
        return image
    return image + (strength * shine / shine.max())[..., None] * (175, 238, 238)


def _relief(drops: np.ndarray) -> np.ndarray:
    """How drops catch the light: the distance from their rims, equalised and embossed, 0 to 255.

    The published script finds the rims by OpenCV's Canny edges; the drops are black and white, so the outermost pixels
    of each drop serve as well. Water then adds 0.9 to 1.2 times the published script's light, in the same places.
    """
    rims = drops & ~ndimage.binary_erosion(drops, border_value=1)
    if not rims.any():
        return np.zeros(drops.shape)
    distance = np.minimum(ndimage.distance_transform_edt(~rims), 20)
    distance = ndimage.uniform_filter(distance, 3, mode="mirror").astype(np.uint8)
    counts = np.bincount(distance.ravel(), minlength=256)
    lowest = counts[distance.min()]
    equalised = 255 * (np.cumsum(counts) - lowest) / max(distance.size - lowest, 1)
    light = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
    embossed = ndimage.correlate(np.rint(equalised)[distance], light, mode="mirror")
    return np.rint(ndimage.uniform_filter(np.clip(embossed, 0, 255), 3, mode="mirror"))


_DRAW: Mapping[str, Callable[[np.ndarray, object, np.random.Generator], np.ndarray]] = {
    "motion_blur": _motion_blur,
    "impulse_noise": _impulse_noise,
    "gaussian_noise": _gaussian_noise,
    "pixelate": _pixelate,
    "spatter": _spatter,
    "contrast": _contrast,
    "jpeg_compression": _jpeg_compression,
}
