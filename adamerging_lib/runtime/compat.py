"""Importing open_clip beside a CPU build of torch, and optional libraries.

open_clip imports torchvision, and torchvision's wheel for the same torch version may be built for CUDA. Its compiled
part then does not load, and declaring the meta kernels of two detection operators fails, though nothing here uses them.
Declaring their schemas first is all that is needed; resizing and cropping are plain torch and PIL.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from types import ModuleType

import torch

_SCHEMA = "{}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_library: torch.library.Library | None = None  # must stay alive, or the schemas vanish


def import_torchvision() -> ModuleType:
    """The ``torchvision`` module.

    Raises:
        ImportError: torchvision is not installed.
    """
    global _library
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        _library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            _library.define(_SCHEMA.format(operator))
        return importlib.import_module("torchvision")


def import_open_clip() -> ModuleType:
    """The ``open_clip`` module.

    Raises:
        ImportError: open_clip_torch is not installed.
    """
    import_torchvision()
    return _without_bars("open_clip")


def import_timm() -> ModuleType:
    """The ``timm`` module, which imports torchvision.

    Raises:
        ImportError: timm is not installed.
    """
    import_torchvision()
    return _without_bars("timm")


def import_datasets() -> ModuleType:
    """The ``datasets`` module of Hugging Face, which brings pyarrow.

    Raises:
        ImportError: it is not installed.
    """
    try:
        return _without_bars("datasets")
    except ModuleNotFoundError as error:
        raise ImportError(
            f"no module named {error.name!r}, which reads the data sets of the CLIP profiles: install the extra, "
            f"pip install 'adamerging_lib[clip]'"
        ) from error


def import_transformers() -> ModuleType:
    """The ``transformers`` module of Hugging Face, which imports torchvision.

    Raises:
        ImportError: it is not installed.
    """
    import_torchvision()
    return _of_text("transformers")


def import_tokenizers() -> ModuleType:
    """The ``tokenizers`` module of Hugging Face, which comes with transformers.

    Raises:
        ImportError: it is not installed.
    """
    return _of_text("tokenizers")


def _of_text(name: str) -> ModuleType:
    try:
        return _without_bars(name)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"no module named {error.name!r}, which the world of text needs: install the extra, "
            f"pip install 'adamerging_lib[text]'"
        ) from error


def _without_bars(name: str) -> ModuleType:
    with warnings.catch_warnings():
        # Below all three, tqdm complains in a notebook without ipywidgets that its bars will be text.
        warnings.filterwarnings("ignore", message="IProgress not found")
        return importlib.import_module(name)
