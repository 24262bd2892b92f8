"""What AdaMerging learns: coefficients over steps, over depth and role of tensors, at the clamp, and over seeds."""

from ..rooms import Face

TASK_WISE = ("task_wise_adamerging", "task_wise_adamerging_pp")
LAYER_WISE = ("layer_wise_adamerging", "layer_wise_adamerging_pp")

FACE = Face(
    question="Which coefficients does AdaMerging find, and does another order of images find the same ones?",
    factors={
        "kind": "where a coefficient comes from: `path`, the steps of a task-wise fit; `final`, the end of a "
        "layer-wise one",
        "step": "of a path",
        "row": "the tensor that a layer-wise coefficient scales",
        "block": "where that tensor lies: `embeddings`, `block_0`, …",
        "role": "what that tensor does, such as `MLP in`",
    },
    measured={"coefficient": "λ"},
    shown=("authors_file", "arch"),
)
