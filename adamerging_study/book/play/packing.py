"""The drawn world as one script that a page loads from disk: a header, and all bytes as text.

A page opened from disk may load scripts but read no file. The bytes are deflated, and fifteen bits of them make one
character of UTF-16: base64 would need a quarter more, and the page would not stay below ten megabytes.
"""

from __future__ import annotations

import gzip
import json
from typing import Any

import numpy as np

from adamerging_lib.layers import block_order
from adamerging_lib.suite import Suite

from .world import Choice, Rounded, depths

SHOWN = 8
"""Images per task that the page shows, the first of each."""
FIRST_CHARACTER = 0x3400
"""The character that stands for fifteen zeros; the last one, 0xB3FF, lies below the surrogates."""
VARIABLE = "adamergingWorld"


def pack(suite: Suite, weights: Rounded, offered: list[Choice]) -> tuple[dict[str, Any], bytes]:
    """Header and bytes: numbers of four bytes first (scales, heads), then codes, images and labels.

    Arguments:
        suite: tasks, heads and images; its weights do not matter.
        weights: what is packed of them.
        offered: sets of coefficients.
    """
    models = [weights.pretrained, *weights.vectors.values()]
    scales = np.concatenate([tensor.scales for model in models for tensor in model.values()])
    heads = np.concatenate([suite.heads[task].numpy().astype(np.float32).ravel() for task in suite.tasks])
    parts = {
        "scales": scales.astype("<f4").tobytes(),
        "heads": heads.astype("<f4").tobytes(),
        **{f"model {n}": b"".join(t.packed() for t in model.values()) for n, model in enumerate(models)},
        "images": b"".join(suite.test[task].images.numpy().tobytes() for task in suite.tasks),
        "labels": b"".join(suite.test[task].labels.numpy().astype(np.uint8).tobytes() for task in suite.tasks),
    }
    ends = np.cumsum([len(part) for part in parts.values()]).tolist()
    header = {
        "tasks": list(suite.tasks),
        "classes": [list(suite.test[task].classes) for task in suite.tasks],
        "images": len(suite.test[suite.tasks[0]]), "shown": SHOWN, "mean": suite.mean[0], "std": suite.std[0],
        "attentionHeads": suite.encoder.transformer.resblocks[0].attn.num_heads,
        "tensors": _tensors(suite, weights),
        "depths": _depths_in_order(suite),
        "choices": [{"id": c.id, "label": c.label, "coefficients": _rows(c)} for c in offered],
        "parts": dict(zip(parts, zip([0, *ends], ends, strict=False), strict=True)),
    }  # fmt: skip
    return header, b"".join(parts.values())


def script(header: dict[str, Any], data: bytes) -> bytes:
    """The script's bytes: UTF-16 with its mark, by which a browser knows the encoding."""
    packed = gzip.compress(data, compresslevel=9, mtime=0)
    told = json.dumps({**header, "bytes": len(packed)}, separators=(",", ":"))
    return f'\ufeffwindow.{VARIABLE} = {{header: {told}, text: "{as_text(packed)}"}};\n'.encode("utf-16-le")


def as_text(data: bytes) -> str:
    """Bytes as characters of fifteen bits each, the first bit the highest, the last character filled up with zeros."""
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    bits = np.pad(bits, (0, -len(bits) % 15)).reshape(-1, 15)
    codes = bits.astype(np.uint16) @ (1 << np.arange(14, -1, -1)).astype(np.uint16)
    return (codes + np.uint16(FIRST_CHARACTER)).astype("<u2").tobytes().decode("utf-16-le")


def _tensors(suite: Suite, weights: Rounded) -> list[dict[str, Any]]:
    order, vector = _depths_in_order(suite), next(iter(weights.vectors.values()))
    of = dict(zip(suite.pretrained, depths(suite), strict=True))
    return [
        {"name": name, "rows": len(t.scales), "length": t.codes.shape[1], "bits": vector[name].bits,
         "depth": order.index(of[name])}
        for name, t in weights.pretrained.items()
    ]  # fmt: skip


def _depths_in_order(suite: Suite) -> list[str]:
    """Parts of the encoder from the first to the last."""
    return sorted(set(depths(suite)), key=block_order)


def _rows(choice: Choice) -> list[list[float]]:
    """λ per task: one number where all tensors share it."""
    rows = [[round(value, 5) for value in row] for row in choice.coefficients.double().tolist()]
    return [row[:1] if len(set(row)) == 1 else row for row in rows]
