"""The mini suite's images: seeded, disjoint, balanced, and drawn from the split's own scans."""

import itertools
import json
import os
import subprocess
import sys

import elsewhere
import numpy as np
import pytest
import torch

from adamerging_lib.runtime.sources import module_files
from adamerging_lib.worlds.mini.tasks import SIZES, SPLITS, TASKS, digits, pretraining, render
from adamerging_lib.worlds.mini.world import mini_heads
from adamerging_lib.worlds.zoo import load_checkpoint, load_clip


@pytest.mark.parametrize("task", TASKS)
def test_images_are_a_function_of_their_index(task):
    images, labels = render(task, "test", 3, 15)
    again, _ = render(task, "test", 9, 12)
    assert images.shape == (12, 3, 32, 32) and images.dtype == np.uint8
    assert np.array_equal(images[6:9], again)
    assert np.array_equal(labels, np.arange(3, 15) % len(TASKS[task].classes))
    assert images.std(axis=(1, 2, 3)).min() > 1  # no blank picture


@pytest.mark.parametrize("task", TASKS)
def test_splits_share_no_image(task):
    drawn = {split: {image.tobytes() for image in render(task, split, 0, 60)[0]} for split in SPLITS}
    assert all(len(images) == 60 for images in drawn.values())
    for first, second in itertools.combinations(drawn.values(), 2):
        assert not first & second


def test_the_suite_has_the_papers_shape():
    assert all(8 <= len(task.classes) <= 20 for task in TASKS.values())
    assert SIZES["test"] >= 1000
    for task in TASKS.values():
        assert len(set(task.classes)) == len(task.classes)


def test_sources_name_every_generator():
    """Else the cache would keep images of a generator that has changed since."""
    assert {task.generator.__name__ for task in TASKS.values()} <= set(module_files([render.__module__]))


def test_every_concept_that_captions_name_is_drawn():
    for generator in pretraining.DRAWN.values():
        concepts = generator.CLASSES + generator.EXTRA
        assert len(set(concepts)) == len(concepts) and set(generator.KIND.other_words) <= set(generator.CLASSES)
        for name in concepts:
            assert generator.draw(name, np.random.default_rng(0), 0.3).shape == (32, 32, 3)


def test_handwriting_of_the_splits_comes_from_different_scans():
    edges = sorted(digits.SCANS.values())
    assert edges[0][0] == 0 and edges[-1][1] == 1
    assert all(first[1] == second[0] for first, second in itertools.pairwise(edges))
    for scans in digits._handwriting().values():
        parts = [set(range(int(len(scans) * low), int(len(scans) * high))) for low, high in digits.SCANS.values()]
        assert all(len(part) >= 15 for part in parts)
        assert sum(map(len, parts)) == len(set().union(*parts))


def test_pretraining_stream_is_seeded_and_never_names_what_it_must_not():
    images, captions = pretraining.captioned(0, 400)
    again, same = pretraining.captioned(100, 110)
    assert np.array_equal(images[100:110], again) and captions[100:110] == same
    other, _ = pretraining.captioned(0, 10, seed=1)
    assert not np.array_equal(images[:10], other)
    text = " ".join(captions)
    replaced = [name for generator in pretraining.DRAWN.values() for name in generator.KIND.other_words]
    assert len(replaced) > 20
    for name in [*replaced, "stop sign", "handwritten", "yield"]:
        assert f" {name}" not in text and not text.startswith(name)
    assert sum("sign" in caption or "letter" in caption for caption in captions) > 20


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="mini task 'dogs' is unknown"):
        render("dogs", "test", 0, 1)
    with pytest.raises(ValueError, match="split 'dev' is unknown"):
        render("digits", "dev", 0, 1)


def test_images_do_not_depend_on_torch_threads():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one, _ = render("textures", "test", 0, 4)
        torch.set_num_threads(2)
        two, _ = render("textures", "test", 0, 4)
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(one, two)


def test_another_processor_has_the_same_images_and_heads():
    """Kept fits are found by digests of these: one bit more or less, and a machine would make all of them anew."""
    slower = {"NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4", "ATEN_CPU_CAPABILITY": "default"}
    slower |= {"ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE"}
    program = [sys.executable, "-W", "ignore::ImportWarning", elsewhere.__file__]
    found = subprocess.run(program, env={**os.environ, **slower}, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout) == elsewhere.digests()


def test_the_shipped_heads_are_those_of_the_shipped_text_tower():
    made, shipped = mini_heads(load_clip(), tuple(TASKS)), load_checkpoint("heads")
    assert made.keys() == shipped.keys()
    for task, head in made.items():
        torch.testing.assert_close(shipped[task], head, rtol=1e-4, atol=1e-4)
