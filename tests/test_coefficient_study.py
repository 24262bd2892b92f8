"""The coefficient experiment: what its rows hold, tables against plain arithmetic, figures, verdicts."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from adamerging_lib import Coefficients
from adamerging_study import tables, verdicts
from adamerging_study.experiments import coefficients as study
from adamerging_study.figures import coefficients as figures

LEARNING = {"recipe": "mini", "steps": 7, "batch_size": 4}


@pytest.fixture(scope="module")
def frame():
    import toy

    rows = study.coefficients(toy.suite(seed=0), [0, 1], LEARNING, setting="transductive", device="cpu")
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    "name, kind",
    [
        ("transformer.resblocks.0.attn.in_proj_weight", "attention in"),
        ("vision_model.encoder.layers.3.self_attn.q_proj.weight", "attention in"),
        ("blocks.2.attn.qkv.weight", "attention in"),
        ("blocks.2.attn.proj.weight", "attention out"),
        ("transformer.resblocks.0.attn.out_proj.weight", "attention out"),
        ("transformer.resblocks.0.mlp.c_fc.weight", "MLP in"),
        ("vision_model.encoder.layers.3.mlp.fc2.weight", "MLP out"),
        ("transformer.resblocks.0.attn.in_proj_bias", "bias"),
        ("transformer.resblocks.0.ln_1.bias", "LayerNorm"),
        ("vision_model.encoder.layers.3.layer_norm2.weight", "LayerNorm"),
        ("blocks.2.norm1.weight", "LayerNorm"),
        ("ln_post.weight", "LayerNorm"),
        ("conv1.weight", "embedding, projection"),
        ("proj", "embedding, projection"),
    ],
)
def test_kinds_of_tensors(name, kind):
    assert study.kind_of(name) == kind


def test_rows_are_whole(frame, suite):
    tensors = len(suite.task_vectors().vectors)
    paths, final = frame[frame["condition"] == "path"], frame[frame["condition"] == "final"]
    assert (
        sorted(paths["step"].unique()) == [0, 5, 7]
        and (paths.query("step == 0")["coefficient"] - 0.3).abs().max() < 1e-6
    )
    assert len(final) == 3 * tensors * 3  # two methods, one of them with two seeds; three tasks
    assert final["coefficient"].between(0, 1).all()


def test_depth_against_plain_means(frame):
    method = study.LAYER_WISE[0]
    own = [
        r for r in frame.to_dict("records") if r["method"] == method and r["condition"] == "final" and r["seed"] == 0
    ]
    picked = [r["coefficient"] for r in own if r["kind"] == "MLP in" and r["block"] == "block_1"]
    assert tables.coefficients.depth(frame, method).loc["MLP in", 1] == pytest.approx(sum(picked) / 3)
    deep = [r["coefficient"] for r in own if r["block"] == "block_1"]
    shallow = [r["coefficient"] for r in own if r["block"] == "block_0"]
    step = sum(deep) / len(deep) - sum(shallow) / len(shallow)
    assert tables.coefficients.deep_minus_shallow(frame, method)["all tensors"] == pytest.approx(step)


def test_tables_figures_and_verdicts(frame):
    assert "exactly 0" in tables.coefficients.spread(frame)
    assert len(tables.coefficients.seeds(frame, study.LAYER_WISE[0])) == 2
    assert tables.coefficients.by_kind(frame).shape[1] == 4
    assert figures.paths(frame).axes and figures.maps(frame, study.LAYER_WISE).axes
    assert figures.profile(frame, study.LAYER_WISE).axes
    found = verdicts.coefficients(frame)
    assert len(found) == 9 and all(v.word != verdicts.NOT_RUN for v in found)


def test_one_seed_is_not_compared_with_itself(frame):
    found = verdicts.coefficients(frame[frame["seed"] == 0])
    assert found[-1].word == verdicts.NOT_RUN


def test_the_authors_file_is_drawn_the_same_way(tmp_path):
    row = lambda value: [1.0] + [value] * 8  # noqa: E731
    rows = [row(0.1 + 0.001 * r) for r in range(158)]
    path = tmp_path / "merging_cofficient.py"
    path.write_text(f"if method == 'lw_adamerging' and model == 'ViT-B-32':\n    table = {rows}\n")
    theirs = study.published_rows(str(path))
    assert len(theirs) == 158 * 8 and set(theirs["method"]) == {study.LAYER_WISE[0]}
    assert figures.maps(theirs, [study.LAYER_WISE[0]]).axes
    with pytest.raises(ValueError, match="holds no layer-wise table of ViT-L-14"):
        study.published_rows(str(path), "ViT-L-14")


def test_final_rows_name_block_and_kind():
    table = Coefficients(
        torch.tensor([[0.5, 0.25]]), ("a",), ("blocks.0.mlp.fc1.weight", "blocks.1.norm1.bias"), "tensor"
    )
    first, second = study.final_rows(table, method="m")
    assert (first["block"], first["kind"], first["coefficient"]) == ("block_0", "MLP in", 0.5)
    assert (second["block"], second["kind"], second["method"]) == ("block_1", "LayerNorm", "m")
