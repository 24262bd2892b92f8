"""Checkpoints in several files."""

import json

from safetensors.torch import save_file


def shards(folder, state, *, index="model.safetensors.index.json"):
    """The state in two files with an index, as large models are published."""
    where = {key: f"model-0000{1 + place % 2}-of-00002.safetensors" for place, key in enumerate(state)}
    for file in set(where.values()):
        save_file({key: t for key, t in state.items() if where[key] == file}, folder / file, {"format": "pt"})
    (folder / index).write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return folder / index
