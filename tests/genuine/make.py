"""What made the files beside it: image encoders pickled by the open_clip releases that published checkpoints come from.

`pip install --no-deps --target OLD open_clip_torch==2.0.2` (then 2.24.0), and `python make.py OLD 2_0_2`. The classes
below have the names and attributes of those of task_vectors, which are pickled by name only.
"""

from __future__ import annotations

import sys
import types
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, sys.argv[1])
from adamerging_lib.runtime.compat import import_open_clip  # noqa: E402

HERE = Path(__file__).parent


class ImageEncoder(nn.Module):
    def __init__(self, model, train_preprocess, val_preprocess):
        super().__init__()
        self.model, self.train_preprocess, self.val_preprocess = model, train_preprocess, val_preprocess
        self.cache_dir = None
        del self.model.transformer  # the text tower's; the rest of the text side stays behind

    def forward(self, images):
        return self.model.encode_image(images)


class ClassificationHead(nn.Linear):
    def __init__(self, normalize, weights):
        super().__init__(weights.shape[1], weights.shape[0])
        self.normalize = normalize
        self.weight = nn.Parameter(weights.clone())
        self.bias = nn.Parameter(torch.zeros_like(self.bias))


if __name__ == "__main__":
    open_clip = import_open_clip()
    from open_clip.model import CLIPTextCfg, CLIPVisionCfg
    from open_clip.transform import image_transform
    from safetensors.torch import save_file

    modeling = types.ModuleType("src.modeling")
    sys.modules |= {"src": types.ModuleType("src"), "src.modeling": modeling}
    for cls in (ImageEncoder, ClassificationHead):
        cls.__module__ = "src.modeling"
        setattr(modeling, cls.__name__, cls)

    torch.manual_seed(0)
    vision = CLIPVisionCfg(layers=2, width=16, head_width=8, patch_size=4, image_size=8)
    text = CLIPTextCfg(context_length=4, vocab_size=10, width=8, heads=2, layers=1)
    model = open_clip.CLIP(embed_dim=6, vision_cfg=vision, text_cfg=text, quick_gelu=True)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) / 4)
    encoder = ImageEncoder(model, image_transform(8, is_train=True), image_transform(8, is_train=False)).eval()
    head = ClassificationHead(True, 100 * torch.randn(5, 6))
    images = torch.randn(3, 3, 8, 8)
    with torch.no_grad():
        expected = {"images": images, "features": encoder(images), "head": head.weight, **encoder.state_dict()}
    torch.save(encoder, HERE / f"encoder_{sys.argv[2]}.pt")
    torch.save(head, HERE / f"head_{sys.argv[2]}.pt")
    save_file({name: t.clone() for name, t in expected.items()}, HERE / f"expected_{sys.argv[2]}.safetensors")
