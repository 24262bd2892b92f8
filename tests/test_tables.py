"""Tables and verdicts say what the record says, no more."""

import pandas as pd

from adamerging_study import tables


def test_manifest_tables():
    accuracies = {"zero_shot": {"a": 40.0, "b": 50.04}, "individual": {"a": 95.0, "b": 96.0}}
    stages = {"encoder": {"width": 128}, "pre-training": {"steps": 100, "lr": 5e-4}, "joint": {"steps": 20, "lr": 1e-5}}
    manifest = {"recipe": stages, "accuracies": accuracies}
    frame = tables.recipe(manifest)
    assert frame.index.tolist() == ["width", "steps", "lr"] and frame.columns.tolist() == list(stages)
    assert frame.loc["lr", "pre-training"] == "0.0005" and pd.isna(frame.loc["lr", "encoder"])
    frame = tables.zoo_accuracies(manifest)
    assert frame.loc["Pretrained"].to_dict() == {"a": "40.0", "b": "50.0", "Average": "45.0"}
    assert frame.loc["Individual", "Average"] == "95.5"
