"""The script with the world and the cost of its rounding, made once and then kept in the cache."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adamerging_lib.runtime.cache import cached, fingerprint_code
from adamerging_lib.state import sha256
from adamerging_lib.worlds.zoo import SHIPPED

from ... import fits
from . import measure, packing, world


@cache
def made() -> tuple[bytes, list[dict[str, Any]]]:
    """The script with the world, and what its rounding costs; kept between builds, as they take some seconds."""
    files = [SHIPPED / "manifest.json", *sorted(fits.folder(world.PROFILE).glob("performance-*-0.safetensors"))]
    assets = {path.name: sha256(path) for path in files}
    parameters = {"images": world.IMAGES, "shown": packing.SHOWN}
    tensors, plain = cached("play", parameters, assets, fingerprint_code(_make), _make)
    return tensors["script"].numpy().tobytes(), plain["cost"]


def _make() -> tuple[dict[str, Tensor], dict[str, Any]]:
    suite = world.small_suite()
    weights, offered = world.rounded(suite), world.choices(suite)
    script = packing.script(*packing.pack(suite, weights, offered))
    cost = measure.cost(suite, world.widened(suite, weights), offered)
    return {"script": torch.from_numpy(np.frombuffer(script, np.uint8).copy())}, {"cost": cost}
