"""What a run was computed with: versions, device and threads, nothing that names the machine."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import Any

import torch

_PACKAGES = ("torch", "torchvision", "open_clip_torch", "timm", "numpy", "pandas", "scipy", "safetensors")


def environment(device: str | torch.device = "cpu") -> dict[str, Any]:
    """Versions, device and threads of this process; nothing that names the machine or its folders."""
    versions = {"python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    device = torch.device(device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {"versions": versions, "device": name, "threads": torch.get_num_threads()}
