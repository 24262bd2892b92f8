"""The `tiny` profiles: a pretrained ViT-Ti/16, eight sets of real photographs, heads from class prototypes.

Everything is in the assets' folder: packs of images (see `tasks.packs`) and the pretrained weights; nothing of it is
part of this package, nor is anything trained from it. `adamerging zoo --profile tiny` trains the experts. The profile
`tiny-hub` takes the paper's data sets and timm's weights as `adamerging fetch` puts them there.

A supervised ViT has no text tower that could make a head from class names. What stands in is the mean feature of each
class's training images under θ0: like a text head it is frozen, the same for every model, and fits θ0 only roughly.
"""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ...checkpoints.reading import open_source
from ...runtime import places
from ...runtime.cache import cached, fingerprint_code
from ...state import CheckpointError, sha256
from ...suite import Suite, TaskData, normalise
from ..clip import hub
from ..clip.world import Lazy
from ..encoders import TINY_MEAN, TINY_STD, tiny_state, tiny_vit
from ..heads import prototype_head
from . import packs
from .experts import read_model
from .packing import make_pack
from .tasks import HUB, SETTINGS, task_set

PRETRAINED = "vit_tiny_p16_224"
LOGIT_SCALE = 30.0
"""Zero-shot cross-entropy over s is lowest at 20 to 30 on every task that is not near chance. CLIP's own scale, 100,
is likewise the one that its training found best."""
TIMM_EPS = 1e-6
"""Of timm's layer norms; the other profiles' weights are of a model with 1e-12."""
TRAINING_POOL = 2000  # images per task: what merging methods get of the training images


def load_tiny(name: str, tasks: Sequence[str]) -> Suite:
    """The suite of a tiny profile; see `load_suite`. The joint model is None until it is trained.

    Arguments:
        name: of the profile.
        tasks: which, in this order.

    Raises:
        CheckpointError: saying which files are missing and how to get them, or which experts are not trained.
    """
    files, known, image_size = asset_files(tasks, name), task_set(name), SETTINGS[name].image_size
    digests = {part: digest(path) for part, path in files.items()}
    encoder = pretrained_encoder(files["pretrained"], image_size)
    models = {task: read_model(task, name, LOGIT_SCALE, digests) for task in tasks}
    everything = asset_files(known, name, needed=False)
    if len(everything) == len(known) + 1:
        inputs = {part: digest(path) for part, path in everything.items()}
        models["joint"] = read_model("joint", name, LOGIT_SCALE, inputs, needed=False)
    trained = {model: found for model, found in models.items() if found}
    return Suite(
        profile=name,
        encoder=encoder,
        pretrained=dict(encoder.state_dict()),
        experts={task: models[task].state for task in tasks},
        joint=trained["joint"].state if "joint" in trained else None,
        heads={task: tiny_head(task, files, image_size, encoder) for task in tasks},
        test={task: tiny_images(task, "test", files[task], image_size) for task in tasks},
        mean=TINY_MEAN,
        std=TINY_STD,
        assets={_asset_name(files[part]): value for part, value in digests.items()}
        | {f"{name}/{model}.safetensors": found.sha256 for model, found in trained.items()},
        train=Lazy(tasks, lambda task: _some(tiny_images(task, "train", files[task], image_size), TRAINING_POOL)),
    )


def asset_files(tasks: Iterable[str], profile: str = "tiny", *, needed: bool = True) -> dict[str, Path]:
    """``pretrained`` and each task → its file in the assets' folder; packs of `tiny-hub` are made where there are none.

    Arguments:
        tasks: which.
        profile: a tiny profile.
        needed: what is missing is made or raised about; else it is left out.

    Raises:
        CheckpointError: where files are missing, saying which and how to get them, unless they are not needed.
        ValueError: where a pack cannot be made of the hub's files, saying what is wrong with them.
    """
    root, tasks = places.assets(), tuple(tasks)
    if profile == HUB:
        return _hub_files(tasks, root, needed)
    names = {"pretrained": PRETRAINED, **{task: task for task in tasks}}
    found = {part: path for part, name in names.items() if (path := packs.find_npz(name, root))}
    if needed and (missing := [f"{name}.npz" for part, name in names.items() if part not in found]):
        raise CheckpointError(
            f"{root} has no {', '.join(missing)}: set ADAMERGING_ASSETS to a folder that has them, or put them there "
            f"or into its folder {packs.FOLDER!r}. They are packs of images (from the Hugging Face Hub or anywhere "
            f"else) and the weights of a pretrained ViT-Ti/16; {packs.__name__} and {tiny_state.__module__}."
            f"tiny_state describe what is in them. With internet, the profile {HUB!r} takes the paper's own data sets: "
            f"`adamerging fetch --profile {HUB}`"
        )
    return found


def _hub_files(tasks: Sequence[str], root: Path, needed: bool) -> dict[str, Path]:
    base = hub.base_model(HUB)
    found = {"pretrained": hub.weights(base, root), **{task: packs.find_npz(task, root / HUB) for task in tasks}}
    if broken := [path for path in found.values() if path and path.suffix == ".npz" and not hub.whole(path)]:
        raise CheckpointError(f"{broken[0]} is cut short: delete it, and it is made anew from the hub's files")
    if needed:
        lacking = [task for task in tasks if not found[task]]
        wanted = list(hub.repositories(HUB, lacking, splits=packs.SPLITS))
        hub.need(HUB, wanted, root, f"--tasks {','.join(lacking)}" if lacking else "--only models")
        found |= {task: make_pack(task, root) for task in lacking}
    return {part: path for part, path in found.items() if path}


def _asset_name(path: Path) -> str:
    """What records call an asset: on the hub, every model's file has the same name."""
    return path.name if path.suffix == ".npz" else f"{path.parent.name}/{path.name}"


def digest(path: Path) -> str:
    """SHA-256 of an asset, computed once per process."""
    state = path.stat()
    return _digest(path, state.st_mtime_ns, state.st_size)


@functools.cache
def _digest(path: Path, modified: int, size: int) -> str:
    return sha256(path)


def pretrained_encoder(path: Path, image_size: int) -> nn.Module:
    """The encoder with θ0, its positions interpolated to the image size."""
    encoder, mend = tiny_vit(image_size), ""
    if path.suffix == ".npz":
        with packs.opened(path) as archive:
            arrays = dict(archive)
    else:
        tensors = open_source(path).tensors
        arrays = {key.replace("patch_embed.proj.", "patch_embed."): t.float().numpy() for key, t in tensors.items()}
        mend = f". Is it that of {hub.base_model(HUB).page}? "
        mend += f"Delete it and run `adamerging fetch --profile {HUB} --only models`"
        for module in encoder.modules():
            if isinstance(module, nn.LayerNorm):
                module.eps = TIMM_EPS
    try:
        encoder.load_state_dict(tiny_state(arrays, image_size))
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}{mend}") from error
    except RuntimeError as error:  # such as those of a model with a distillation token
        raise CheckpointError(f"{path}: the positions are not those of a ViT-Ti/16 ({error}){mend}") from error
    return encoder.eval().requires_grad_(False)


def tiny_images(task: str, split: str, path: Path, image_size: int) -> TaskData:
    """Images of one split of a task, decoded once and then kept in the cache.

    Raises:
        ValueError: naming the pack and what is wrong with it.
    """

    def compute() -> tuple[dict[str, Tensor], dict]:
        data = packs.read_pack(path, split, image_size)
        return {"images": data.images, "labels": data.labels}, {"classes": list(data.classes)}

    # Pillow decodes and resizes: another version may give other pixels.
    parameters = {"task": task, "split": split, "size": image_size, "pillow": importlib.metadata.version("pillow")}
    sources = fingerprint_code(packs.read_pack)
    tensors, plain = cached("images", parameters, {"pack": digest(path)}, sources, compute)
    return TaskData(tensors["images"], tensors["labels"], tuple(plain["classes"]))


def tiny_head(task: str, files: Mapping[str, Path], image_size: int, encoder: nn.Module) -> Tensor:
    """The prototype head of a task, ``[classes, 192]``, from all its training images; kept in the cache.

    Arguments:
        task: task id.
        files: of `asset_files`.
        image_size: pixels per side.
        encoder: with θ0.
    """

    def compute() -> tuple[dict[str, Tensor], dict]:
        data = tiny_images(task, "train", files[task], image_size)
        parts = tqdm(data.images.split(128), desc=f"{task}: prototypes", leave=False, disable=None)
        with torch.inference_mode():
            features = torch.cat([encoder(normalise(part, TINY_MEAN, TINY_STD)) for part in parts])
        return {"head": prototype_head(features, data.labels, len(data.classes), LOGIT_SCALE)}, {}

    parameters = {"task": task, "size": image_size, "scale": LOGIT_SCALE, "timm": importlib.metadata.version("timm")}
    assets = {"pack": digest(files[task]), "pretrained": digest(files["pretrained"])}
    sources = fingerprint_code(prototype_head, packs.read_pack, tiny_state)
    tensors, _ = cached("head", parameters, assets, sources, compute)
    return tensors["head"]


def _some(data: TaskData, count: int) -> TaskData:
    """A seeded draw: packs may be sorted by class."""
    chosen = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:count].sort().values
    return TaskData(data.images[chosen], data.labels[chosen], data.classes)
