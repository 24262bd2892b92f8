"""The page "What it costs": numbers from records, everything else "not run"."""

from __future__ import annotations

from pathlib import Path

import pytest

from adamerging_lib import records
from adamerging_study import costs as study_costs
from adamerging_study.book import directives
from adamerging_study.costs import QUANTITIES, STUDY

ROOT = Path(__file__).resolve().parents[1]


def write(folder, name, rows, device):
    record = records.new("adamerging_step", "benchmark", {}, None, rows, [0], "2026-01-01T00:00:00", 7.0)
    record["environment"]["device"] = device
    folder.mkdir(parents=True, exist_ok=True)
    records.write(record, folder / f"adamerging_step{name}.json")


def rows_of(case, step, forward, **identity):
    """A step of so many seconds for 256 images, and a forward of so many."""
    common = {"case": case, "tasks": 8, "images": 256, **identity}
    values = {"plain": (step, step / 1.1), "forward": (forward, step), "tasks": (3 * step, step), "memory": (4.0, 5.0)}
    return [
        {**common, "quantity": QUANTITIES[name], "value": value, "baseline": base, "ratio": round(value / base, 3)}
        for name, (value, base) in values.items()
    ]


def test_counts_are_the_paper_s():
    main = {part.arch: part for part in STUDY if part.name == "eight tasks"}
    assert main["ViT-B-32"].adapted_images == 4 * 128_000
    assert study_costs.EIGHT == 19_887 + 8_041 + 6_300 + 2_700 + 26_032 + 12_630 + 10_000 + 1_880
    assert {part.tasks for part in STUDY} == {8, 6, 4}


def test_without_records_nothing_was_run(tmp_path):
    found = study_costs.measured(tmp_path)
    assert found == []
    steps = study_costs.step_rows(found)
    assert len(steps) == 6 and all(row[5:] == ["not run"] * 6 for row in steps)
    header, *rows = study_costs.study_rows(found)
    assert header[-1] == "hours on a GPU, float32" and {row[-1] for row in rows} == {"not run"}


def test_hours_are_images_times_seconds_an_image(tmp_path):
    write(tmp_path, "", [{**rows_of("mini", 1.0, 0.1)[0]}, *rows_of("ViT-B-32", 25.6, 2.56)], "cpu")
    half = {"autocast": "bfloat16", "vectors_dtype": "bfloat16"}
    gpu = [*rows_of("ViT-B-32", 0.256, 0.0256), *rows_of("ViT-B-32", 0.128, 0.0128, **half)]
    write(tmp_path, "_gpu", gpu, "GPU of tests")
    write(tmp_path, "_components", rows_of("ViT-B-32", 30.0, 3.0, components=True), "cpu")  # shown, not reckoned with
    found = study_costs.measured(tmp_path)
    assert [row[3] for row in study_costs.step_rows(found)].count("float32, a coefficient per component") == 1
    header, first, *_, total = study_costs.study_rows(found)
    assert header[5:] == [
        "hours on one CPU core, float32",
        "hours on GPU of tests, float32",
        "hours on GPU of tests, autocast and T bfloat16",
    ]
    # A tenth of a second per image forward and backward, a hundredth forward alone.
    hours = (512_000 * 0.1 + 12 * 87_470 * 0.01) / 3600
    assert [float(cell) for cell in first[5:]] == pytest.approx([hours, hours / 100, hours / 200], rel=0.01)
    assert total[5:] == ["not run"] * 3  # two archs of the study were not measured
    steps = study_costs.step_rows(found)
    assert steps[0] == [
        "ViT-B-32",
        "8",
        "one CPU core",
        "float32",
        "256",
        "25.6",
        "4",
        "1.1",
        "3",
        "not run",
        "0.8",
    ]
    devices = ["one CPU core", "one CPU core", "GPU of tests", "GPU of tests", "a GPU"]
    assert [row[2] for row in steps[:5]] == devices


def test_the_whole_study_adds_up(tmp_path):
    rows = [row for case in study_costs.ARCHS for row in rows_of(case, 0.256, 0.0256)]
    write(tmp_path, "_gpu", rows, "GPU of tests")
    _, *parts, total = study_costs.study_rows(study_costs.measured(tmp_path))
    assert float(total[-1]) == pytest.approx(sum(float(part[-1]) for part in parts), rel=0.01)
    assert int(total[2]) == sum(int(part[2]) for part in parts)


def test_the_committed_page(monkeypatch):
    monkeypatch.chdir(ROOT)
    step, study = directives.costs_text("step"), directives.costs_text("study")
    for arch in study_costs.ARCHS:
        assert arch in step and arch in study
    assert "| ViT-B-32 | 8 | one CPU core | float32 |" in step
    for tasks in (8, 20):
        assert f"| ViT-B-32 | {tasks} | one CPU core | float32, a coefficient per component |" in step
    recipe = directives.costs_text("recipe")
    assert "AdaMerging per component | equal images" in recipe and "ProDistill | equal seconds" in recipe
    assert "extrapolation" in (ROOT / "book/costs.md").read_text()
