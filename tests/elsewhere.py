"""Digests of what the drawn world computes; a test runs this as on a processor with fewer features."""

import hashlib
import json

import numpy as np

from adamerging_lib.worlds.corruptions import CORRUPTIONS, SEVERITIES, corrupt_images
from adamerging_lib.worlds.mini.tasks import TASKS, render
from adamerging_lib.worlds.zoo import load_checkpoint


def digests(count: int = 48) -> dict[str, str]:
    """What → SHA-256 of its bits."""
    drawn = {task: render(task, "test", 0, count)[0] for task in TASKS}
    found = {f"images {task}": images for task, images in drawn.items()}
    found |= {f"heads {task}": head.numpy() for task, head in load_checkpoint("heads").items()}
    found |= {
        f"{name} {severity} {task}": corrupt_images(images if severity == 3 else images[:12], name, severity, task=task)
        for name in CORRUPTIONS for severity in SEVERITIES for task, images in drawn.items()
    }  # fmt: skip
    return {name: hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest() for name, values in found.items()}


if __name__ == "__main__":
    print(json.dumps(digests()))
