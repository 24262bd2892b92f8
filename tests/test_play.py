"""The page *Play: merge in your browser*: rounded weights, the script with them, and what a browser makes of it."""

import gzip
import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from browser import CHROMIUM, Page

from adamerging_lib import records
from adamerging_lib.task_vectors import TaskVectors
from adamerging_study import claims
from adamerging_study.book.play import measure, packing, page, world
from adamerging_study.book.play.quantise import quantise

ROOT = Path(__file__).resolve().parents[1]
STATIC = ROOT / "book" / "_static"
SHOWN = packing.SHOWN
browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium or Chrome here, which these tests drive")


@pytest.mark.parametrize("bits", (4, 8))
@pytest.mark.parametrize("shape", ((6, 10), (3, 2, 4, 4), (8,)))
def test_rounding_moves_no_entry_by_more_than_half_a_step(bits, shape):
    tensor = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    found = quantise(tensor, bits)
    rows = tensor.reshape(len(tensor) if tensor.ndim > 1 else 1, -1)
    assert found.scales == pytest.approx(np.abs(rows).max(1) / (2 ** (bits - 1) - 1))
    apart = np.abs(found.values() - tensor).reshape(rows.shape)
    assert (apart <= 0.5001 * found.scales[:, None]).all() and found.values().shape == shape
    assert 0 < apart.max()


def test_rows_of_zeros_stay_zeros():
    found = quantise(np.zeros((2, 4), np.float32), 4)
    assert not found.values().any() and np.isfinite(found.scales).all()


def test_two_codes_of_four_bits_share_a_byte():
    found = quantise(np.array([[7.0, -7.0, 0.0, 3.0]]), 4)
    assert [(byte & 15, byte >> 4) for byte in found.packed()] == [(15, 1), (8, 11)]
    assert np.frombuffer(quantise(np.array([127.0, -5.0]), 8).packed(), np.int8).tolist() == [127, -5]


@pytest.mark.parametrize(
    "tensor, bits, told",
    ((np.ones((2, 3)), 4, "rows of 3"), (np.ones(2), 5, "not 5"), (np.array([np.nan]), 8, "finite")),
)
def test_what_cannot_be_rounded_is_refused(tensor, bits, told):
    with pytest.raises(ValueError, match=told):
        quantise(tensor, bits)


@pytest.mark.parametrize("count", (0, 1, 14, 15, 16, 1000))
def test_bytes_as_text_are_read_back(count):
    data = np.random.default_rng(count).integers(0, 256, count, np.uint8).tobytes()
    text = packing.as_text(data)
    assert len(text) == -(-8 * count // 15) and not any("\ud800" <= c <= "\udfff" or c < "㐀" for c in text)
    assert read(text, count) == data


def read(text: str, count: int) -> bytes:
    bits = "".join(f"{ord(c) - packing.FIRST_CHARACTER:015b}" for c in text)
    return bytes(int(bits[8 * i : 8 * i + 8], 2) for i in range(count))


@pytest.fixture(scope="module")
def played():
    """The drawn world as the page has it, with as many images per task as the page shows."""
    suite = world.small_suite(SHOWN)
    weights, offered = world.rounded(suite), world.choices(suite)
    header, data = packing.pack(suite, weights, offered)
    return SimpleNamespace(
        suite=suite, small=world.widened(suite, weights), offered=offered, header=header, data=data,
        script=packing.script(header, data),
    )  # fmt: skip


def test_the_script_holds_the_world_and_is_small(played):
    told = played.script.decode("utf-16")
    start, end = f"window.{packing.VARIABLE} = {{header: ", ', text: "'
    header = json.loads(told[len(start) : told.index(end)])
    assert told.startswith(start) and header["tasks"] == list(played.suite.tasks)
    packed = gzip.compress(played.data, compresslevel=9, mtime=0)
    assert header["bytes"] == len(packed)
    assert packing.as_text(packed) == told[told.index(end) + len(end) : -4]
    more = len(played.suite.tasks) * (world.IMAGES - SHOWN) * 3 * 32 * 32
    assert len(played.script) + more * 16 / 15 < 7.5e6


def test_depths_and_coefficients_fit_the_tensors(played):
    header = played.header
    assert [t["name"] for t in header["tensors"]] == list(played.suite.pretrained)
    assert header["depths"] == ["embeddings", *(f"block_{n}" for n in range(6)), "head"]
    assert {t["depth"] for t in header["tensors"]} == set(range(len(header["depths"])))
    assert sum(t["rows"] * t["length"] for t in header["tensors"]) == sum(
        tensor.numel() for tensor in played.suite.pretrained.values()
    )
    for choice, told in zip(played.offered, header["choices"], strict=True):
        for row, own in zip(choice.coefficients.tolist(), told["coefficients"], strict=True):
            assert row == pytest.approx(own if len(own) > 1 else own * len(row), abs=1e-5)


def test_rounding_costs_little(played):
    images = len(played.suite.tasks) * SHOWN
    for row in measure.cost(played.suite, played.small, played.offered):
        assert row["changed"] <= 0.05 * images
        assert abs(row["whole"] - row["rounded"]) <= 100 * row["changed"] / images + 1e-6


def test_the_sweep_is_the_records():
    found = world.sweep()
    rows = records.read(claims.record_of("performance", world.PROFILE))["rows"]
    swept = [row for row in rows if row.get("scaling") is not None]
    assert len(swept) == sum(len(at) for of in found.values() for at in of.values()) > 100
    for row in swept:
        assert found[row["method"]][f"{row['scaling']:g}"][row["task"]] == row["accuracy"]


def test_scripts_stand_on_the_page_that_has_a_place_for_them_alone():
    added = []
    app = SimpleNamespace(builder=SimpleNamespace(name="html"), env=SimpleNamespace(), add_js_file=added.append,
                          add_css_file=added.append)  # fmt: skip
    page.add_scripts(app, "book/other", "page.html", {"body": "<p>play</p>"}, None)
    assert added == [] and not app.env.adamerging_plays
    page.add_scripts(app, "book/play", "page.html", {"body": page.sweep_text()}, None)
    assert added == ["sweep.js", "play.css"] and not app.env.adamerging_plays


# ------------------------------------------------------------------------------------------------- in a browser


@pytest.fixture(scope="module")
def opened(played, tmp_path_factory):
    """The page's two places, opened from disk with its own scripts."""
    folder = tmp_path_factory.mktemp("play")
    (folder / page.DATA).write_bytes(played.script)
    sweep = page.sweep_text().partition("```{raw} html\n")[2].partition("\n```")[0]
    scripts = "".join(f'<script src="{name}"></script>' for name in (page.DATA,))
    scripts += "".join(
        f'<script src="{(STATIC / name).as_uri()}"></script>' for name in ("play-engine.js", "play.js", "sweep.js")
    )
    style = f'<link rel="stylesheet" href="{(STATIC / "play.css").as_uri()}">'
    body = f'<!doctype html><meta charset="utf-8">{style}<div id="play" class="play"></div>{sweep}{scripts}'
    (folder / "index.html").write_text(body, encoding="utf-8")
    with Page(tmp_path_factory.mktemp("profile")) as shown:
        shown.open((folder / "index.html").as_uri())
        shown.wait(DONE)
        yield shown


DONE = "document.getElementById('play').dataset.state === 'done'"
AVERAGE = "document.querySelector('.play-result strong').textContent"


def merged(played, coefficients):
    vectors: TaskVectors = played.small.task_vectors()
    return measure.predictions(played.small, vectors.merge(coefficients, "tensor"))


def average(played, coefficients) -> float:
    found = measure.accuracy(played.small, merged(played, coefficients))
    return sum(found.values()) / len(found)


def shown_average(opened) -> float:
    return float(opened.run(AVERAGE).removesuffix(" %"))


def start_from(opened, choice: str) -> None:
    opened.run(
        f"(() => {{ const s = document.getElementById('play-choice'); s.value = '{choice}';"
        "document.getElementById('play').dataset.state = 'asked'; s.dispatchEvent(new Event('change')); })()"
    )
    opened.wait(DONE)


@browser
def test_the_browsers_logits_are_torchs(played, opened):
    opened.run(
        "adamergingEngine().unpack(window.adamergingWorld).then("
        "(buffer) => { window.tried = adamergingEngine().open(window.adamergingWorld.header, buffer); })"
    )
    for n in (0, len(played.offered) - 1):
        opened.run(f"window.tried.merge(window.adamergingWorld.header.choices[{n}].coefficients)")
        expected = merged(played, played.offered[n].coefficients)
        for k, task in enumerate(played.suite.tasks):
            assert np.array(opened.run(f"window.tried.logits({k}, 0, {SHOWN}, 0)")) == pytest.approx(
                expected[task].numpy(), abs=2e-3
            )


@browser
def test_every_choice_gives_the_accuracy_that_python_measures(played, opened):
    for choice in played.offered:
        start_from(opened, choice.id)
        assert shown_average(opened) == pytest.approx(average(played, choice.coefficients), abs=0.0501)
    assert opened.errors == []


@browser
def test_sliders_and_boxes_work_from_the_keyboard(played, opened):
    start_from(opened, played.offered[-1].id)
    first = "document.querySelector('.play-task input[type=range]')"
    opened.run(f"document.getElementById('play').dataset.state = 'asked'; {first}.focus()")
    opened.press("End", 35)
    opened.wait(DONE)
    assert opened.run(f"{first}.getAttribute('aria-valuetext')") == "1.00"
    assert opened.run("document.getElementById('play-choice').value") == "own"
    opened.run(
        "document.getElementById('play').dataset.state = 'asked';"
        "document.querySelectorAll('.play-merged input')[1].focus()"
    )
    opened.press(" ", 32)
    opened.wait(DONE)
    assert opened.run("document.querySelectorAll('.play-task')[1].classList.contains('left-out')")
    rows = played.offered[-1].coefficients.double().clone()
    rows[0] += 1 - rows[0].mean()  # the slider moves the mean, differences between tensors stay
    rows[1] = 0
    assert shown_average(opened) == pytest.approx(average(played, rows.float()), abs=0.0501)


@browser
def test_answers_take_the_time_that_the_page_tells(opened, monkeypatch):
    """As `benchmarks/play.py` measures it, from the move of a slider on; how long it is belongs to the machine."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import play

    opened.run(play.WATCH)
    for found in play.moves(opened, 2):
        assert 0 < found[play.SHOWN] <= found[play.ALL]
        told = opened.run("document.querySelector('.play-status').textContent")
        whole, shown = re.fullmatch(r"all \d+ images in ([\d.]+) s, the \d+ shown in ([\d.]+) s", told).groups()
        # The page counts from the next frame on, and its clock stops before it draws.
        assert float(whole) - 0.06 <= found[play.ALL] and float(shown) - 0.06 <= found[play.SHOWN]
    rows = play.rows_of(found, [found] * 3)
    assert [row["case"].partition(",")[0] for row in rows] == ["opening"] * 2 + ["move of a slider"] * 4
    assert opened.errors == []


@browser
def test_noise_depends_on_its_strength_alone(opened):
    noise = "Array.from(adamergingEngine().addNoise(new Uint8Array(3072).fill(128), {}, {}))"
    once, again, other = (np.array(opened.run(noise.format(0.1, seed))) for seed in (1, 1, 2))
    assert (once == again).all() and (once != other).mean() > 0.9
    assert once.mean() == pytest.approx(128, abs=2) and once.std() == pytest.approx(25.5, rel=0.05)
    assert (np.array(opened.run(noise.format(0, 1))) == 128).all()


@browser
def test_the_slider_over_the_sweep_shows_the_record(opened):
    found, shown = world.sweep(), "Object.fromEntries([...document.querySelectorAll('#sweep output[data-task]')].map("
    for place, method in enumerate(found):
        opened.run(
            f"(() => {{ const s = document.getElementById('sweep-method'); s.value = {place};"
            "s.dispatchEvent(new Event('change')); document.getElementById('sweep-lambda').focus(); })()"
        )
        opened.press("Home", 36)
        for scaling in found[method]:
            assert opened.run("document.querySelector('#sweep .play-slider output').textContent") == scaling
            values = opened.run(f"{shown}(one) => [one.dataset.task, parseFloat(one.textContent)]))")
            assert values == pytest.approx(found[method][scaling], abs=0.0501)
            opened.press("ArrowRight", 39)
