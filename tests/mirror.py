"""A hub of our own: small CLIP models and image data sets in the hub's exact layout, served over HTTP."""

from __future__ import annotations

import hashlib
import io
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import torch
from clips import randomised
from PIL import Image
from safetensors.torch import save_file

from adamerging_lib.runtime.compat import import_torchvision
from adamerging_lib.worlds.clip import hub
from adamerging_lib.worlds.clip.tasks import TASKS, hub_split

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SMALL = dict(hidden_size=16, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2)
SIZE = 16


def clip_config(**changes) -> dict:
    """``config.json`` of a CLIPModel with heads of width 8, 8-pixel patches of 16-pixel images, features of size 8."""
    vision = {**SMALL, "image_size": SIZE, "patch_size": 8, "hidden_act": "quick_gelu", **changes}
    text = {**SMALL, "vocab_size": 49408, "max_position_embeddings": 77, "hidden_act": "quick_gelu"}
    text |= {"bos_token_id": 49406, "eos_token_id": 49407}
    return {"model_type": "clip", "projection_dim": 8, "vision_config": vision, "text_config": text}


def _states(seed: int, prefix: str, config: dict | None = None) -> tuple[dict, dict]:
    """A base's state dict, and its vision model's, under transformers 4's names (``vision_model.``) or 5's."""
    import transformers

    model = randomised(transformers.CLIPModel(transformers.CLIPConfig(**(config or clip_config()))), seed)
    base = {key: tensor.contiguous() for key, tensor in model.state_dict().items()}
    vision = {key: tensor for key, tensor in base.items() if key.startswith("vision_model.")}
    return base, {prefix + key.removeprefix("vision_model."): tensor.clone() for key, tensor in vision.items()}


def put_models(root: Path, profile: str, tasks, prefix: str = "vision_model.") -> None:
    """The base of a profile and experts near it, as they are published."""
    base, vision = _states(0, prefix)
    positions = {f"{tower}_model.embeddings.position_ids": torch.arange(5)[None] for tower in ("text", "vision")}
    _put(root / hub.base_model(profile).place, base | positions, clip_config())
    for number, task in enumerate(tasks, 1):
        generator = torch.Generator().manual_seed(number)
        expert = {key: t + 0.2 * torch.randn(t.shape, generator=generator) for key, t in vision.items()}
        _put(root / hub.expert_model(profile, task).place, expert, clip_config()["vision_config"])


def _put(folder: Path, state: dict, config: dict) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {key: tensor.contiguous() for key, tensor in state.items()}, folder / "model.safetensors", {"format": "pt"}
    )
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")


def put_vit(root: Path, name: str = "vit_tiny_patch16_224", **changes) -> torch.nn.Module:
    """A randomly initialised ViT of timm as the base of the profile `tiny-hub`, under timm's own names; returns it."""
    import_torchvision()  # timm imports it
    import timm

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = timm.create_model(name, pretrained=False, **changes).eval()
        state = {key: tensor + 0.02 * torch.randn(tensor.shape) for key, tensor in model.state_dict().items()}
    model.load_state_dict(state)
    _put(root / hub.base_model("tiny-hub").place, state, {"architecture": name, "num_classes": model.num_classes})
    return model


def put_data(root: Path, task: str, splits=("test",), count: int | None = None, files: int = 1) -> None:
    """A data set: noisy images whose brightness tells the class, as parquet with the hub's features."""
    from datasets import ClassLabel, Dataset, Features
    from datasets import Image as Picture

    spec = TASKS[task]
    classes = list(spec.classes)
    count = max(len(classes), 24) if count is None else count
    folder = root / "datasets" / spec.repo
    for split in splits:
        rng = np.random.default_rng(len(classes) + len(split))
        labels = [index % len(classes) for index in range(count)]
        images = [{"bytes": _png(rng, label / len(classes)), "path": None} for label in labels]
        names = ClassLabel(names=classes)
        rows = Dataset.from_dict(
            {spec.image: images, spec.label: labels}, features=Features({spec.image: Picture(), spec.label: names})
        )
        for number in range(files):
            name = spec.files.format(split=hub_split(spec, split)).replace("*", f"{number:05d}-of-{files:05d}")
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            rows.shard(files, number, contiguous=True).to_parquet(folder / name)
    (folder / "README.md").write_text("no licence\n")


def _png(rng: np.random.Generator, brightness: float) -> bytes:
    pixels = rng.normal(255 * brightness, 40, (SIZE + 4, SIZE + 2, 3)).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


class Mirror:
    """A folder with ``models/owner/name/…`` and ``datasets/owner/name/…`` that speaks as much of the hub as is needed.

    Arguments:
        root: the folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.cut: dict[str, int] = {}
        """Name of a file → bytes after which its connection breaks."""
        self.ranges: list[tuple[str, str]] = []
        """(name of a file, Range asked for) of every download."""
        self.downloads: list[str] = []
        self.gated: set[str] = set()

    def info(self, kind: str, name: str) -> dict | None:
        folder = self.root / kind / name
        if not folder.is_dir():
            return None
        readme = folder / "README.md"
        licence = re.search(r"^license: (\S+)", readme.read_text(), re.MULTILINE) if readme.is_file() else None
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        tags = [f"license:{licence[1]}"] if licence else []
        return {
            "_id": "0", "id": name, "sha": COMMIT, "private": False, "tags": tags, "downloads": 0, "likes": 0,
            "siblings": [self._sibling(path, path.relative_to(folder).as_posix()) for path in files],
        }  # fmt: skip

    def _sibling(self, path: Path, name: str) -> dict:
        content = path.read_bytes()
        entry = {"rfilename": name, "size": len(content)}
        entry["blobId"] = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        if path.suffix in (".safetensors", ".parquet", ".bin"):
            entry["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
        return entry


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    mirror: Mirror

    def do_HEAD(self) -> None:  # noqa: N802
        self._answer()

    def do_GET(self) -> None:  # noqa: N802
        self._answer()

    def log_message(self, *_) -> None:
        pass

    def _answer(self) -> None:
        path = self.path.partition("?")[0]
        if found := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/revision/[^/]+)?", path):
            info = self.mirror.info(*found.groups())
            if found[2] in self.mirror.gated:
                self._send(403, b"{}", {"X-Error-Code": "GatedRepo"})
            elif info is None:
                self._send(401, b"{}", {"X-Error-Code": "RepoNotFound"})
            else:
                self._send(200, json.dumps(info).encode(), {"Content-Type": "application/json"})
            return
        found = re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        file = self.mirror.root / ("datasets" if found and found[1] else "models") / "/".join(found.group(2, 4)) \
            if found else None  # fmt: skip
        if file is None or not file.is_file():
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        self._file(file)

    def _file(self, file: Path) -> None:
        content, asked = file.read_bytes(), self.headers.get("Range")
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
        status = 200
        if self.command == "GET":
            self.mirror.ranges.append((file.name, asked or ""))
            self.mirror.downloads.append(file.relative_to(self.mirror.root).as_posix())
        if asked:
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            content, status = content[start:], 206
        self._send(status, content, headers, self.mirror.cut.get(file.name))

    def _send(self, status: int, content: bytes, headers: dict[str, str], cut: int | None = None) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content)), "Accept-Ranges": "bytes"}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content if cut is None else content[:cut])
            if cut is not None:
                self.close_connection = True


@contextmanager
def served(mirror: Mirror):
    """The address of a mirror while it is served."""
    handler = type("Handler", (_Handler,), {"mirror": mirror})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()
