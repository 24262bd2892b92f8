"""Memory-mapped stores of preprocessed images."""

from __future__ import annotations

import json
import logging
import os
import resource
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import hubfiles
import numpy as np
import pytest
import torch
from datasets import Value

import adamerging_lib as am
from adamerging_lib import state
from adamerging_lib.runtime import cache
from adamerging_lib.suite import TaskData
from adamerging_lib.worlds.clip import pixels, store
from adamerging_lib.worlds.clip.store import task_images
from adamerging_lib.worlds.clip.tasks import TASKS

EUROSAT, DTD, GTSRB, MNIST, PCAM = (TASKS[name] for name in ("EuroSAT", "DTD", "GTSRB", "MNIST", "PCAM"))


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(store, "CHUNK", 4)


@pytest.fixture
def eurosat(tmp_path):
    """21 images of 64 px in two files; the assets folder, the encoded images and the labels."""
    images, labels = hubfiles.pictures(21, width=64, height=64), [(7 * n) % 10 for n in range(21)]
    hubfiles.write_split(tmp_path, EUROSAT, "test", images, labels, shards=2)
    return tmp_path, images, labels


def plainly(images: list[bytes], size: int) -> torch.Tensor:
    return torch.from_numpy(np.stack([pixels.preprocess(data, size) for data in images]))


def stores() -> list[Path]:
    return sorted((cache.folder() / "stores").iterdir())


def test_a_store_holds_what_the_files_hold(eurosat):
    root, images, labels = eurosat
    data = task_images(EUROSAT, "test", root, size=16)
    assert data.images.dtype == torch.uint8 and data.images.shape == (21, 3, 16, 16)
    assert torch.equal(data.images, plainly(images, 16))
    assert data.labels.dtype == torch.int64 and data.labels.tolist() == labels
    assert data.classes == EUROSAT.classes
    (folder,) = stores()
    assert folder.name.startswith("EuroSAT-test-16-")


def test_images_are_decoded_once(eurosat, monkeypatch):
    root, *_ = eurosat
    first = task_images(EUROSAT, "test", root, size=16)

    def never(*args, **options):
        raise AssertionError("decoded again")

    monkeypatch.setattr(store, "decode", never)
    again = task_images(EUROSAT, "test", root, size=16)
    assert torch.equal(again.images, first.images) and torch.equal(again.labels, first.labels)
    with pytest.raises(AssertionError, match="decoded again"):
        task_images(EUROSAT, "test", root, size=17)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads Linux's list of mapped files")
def test_images_are_mapped_and_writing_to_them_leaves_the_store_alone(eurosat):
    root, *_ = eurosat
    images = task_images(EUROSAT, "test", root, size=16).images
    mapped = [line for line in Path("/proc/self/maps").read_text().splitlines() if str(stores()[0]) in line]
    assert mapped and "images.npy" in mapped[0]
    kept = images.clone()
    images.zero_()
    assert torch.equal(task_images(EUROSAT, "test", root, size=16).images, kept)


def test_a_draw_is_that_of_some_images_and_decodes_no_others(eurosat, suite, monkeypatch):
    root, *_ = eurosat
    whole = task_images(EUROSAT, "test", root, size=8)
    expected = replaced(suite, whole).some_images(5, seed=3).test["alpha"]
    calls = []
    genuine = store.decode
    monkeypatch.setattr(store, "decode", lambda item, **options: calls.append(item[0]) or genuine(item, **options))
    drawn = task_images(EUROSAT, "test", root, size=8, count=5, seed=3)
    assert torch.equal(drawn.images, expected.images) and torch.equal(drawn.labels, expected.labels)
    assert len(calls) == 5
    everything = task_images(EUROSAT, "test", root, size=8, count=21)
    assert len(calls) == 5 and torch.equal(everything.images, whole.images)  # the whole split's store


def test_grey_images_and_corrupted_splits(tmp_path):
    images = hubfiles.pictures(3, width=28, height=28, mode="L")
    hubfiles.write_split(tmp_path, MNIST, "test", images, [7, 2, 1])
    data = task_images(MNIST, "test", tmp_path, size=24)
    assert torch.equal(data.images[:, 0], data.images[:, 2]) and data.labels.tolist() == [7, 2, 1]
    blurred = hubfiles.pictures(3, seed=9)
    hubfiles.write_split(tmp_path, GTSRB, "motion_blur", blurred, [14, 0, 42])
    hubfiles.write_split(tmp_path, GTSRB, "test", hubfiles.pictures(3), [14, 0, 42])
    data = task_images(GTSRB, "motion_blur", tmp_path, size=12)
    assert torch.equal(data.images, plainly(blurred, 12)) and data.labels.tolist() == [14, 0, 42]
    assert not torch.equal(data.images, task_images(GTSRB, "test", tmp_path, size=12).images)
    with pytest.raises(ValueError, match="DTD .* has no split 'motion_blur'"):
        task_images(DTD, "motion_blur", tmp_path)


def test_changed_files_make_a_new_store(eurosat):
    root, images, labels = eurosat
    task_images(EUROSAT, "test", root, size=8)
    other = [*images[:-1], hubfiles.encoded(hubfiles.picture(99, 64, 64))]
    hubfiles.write_split(root, EUROSAT, "test", other, labels, shards=2)
    assert torch.equal(task_images(EUROSAT, "test", root, size=8).images, plainly(other, 8))
    assert len(stores()) == 2


@pytest.mark.parametrize("killed_at", [0, 3, 4, 11, 20])
def test_a_stopped_preparation_goes_on_where_it_stopped(eurosat, small_chunks, monkeypatch, killed_at):
    root, images, labels = eurosat
    genuine, seen = store.decode, []

    def stops(item, **options):
        if len(seen) == killed_at:
            raise KeyboardInterrupt
        seen.append(item[0])
        return genuine(item, **options)

    monkeypatch.setattr(store, "decode", stops)
    with pytest.raises(KeyboardInterrupt):
        task_images(EUROSAT, "test", root, size=8)
    (folder,) = stores()
    assert not (folder / "store.json").exists()
    with open(folder / "images.npy", "ab") as file:
        file.write(b"half a chunk")
    seen.clear()
    monkeypatch.setattr(store, "decode", lambda item, **options: seen.append(item[0]) or genuine(item, **options))
    data = task_images(EUROSAT, "test", root, size=8)
    assert torch.equal(data.images, plainly(images, 8)) and data.labels.tolist() == labels
    assert len(seen) == 21 - killed_at // 4 * 4
    assert stored(folder) == fingerprints(data)


def test_a_preparation_killed_by_the_system_goes_on(eurosat):
    root, images, labels = eurosat
    script = (
        "import os, signal, sys\n"
        "from adamerging_lib.worlds.clip import store\n"
        "from adamerging_lib.worlds.clip.tasks import TASKS\n"
        "store.CHUNK, write, calls = 4, store._write, []\n"
        "def dies(*args):\n"
        "    write(*args)\n"
        "    calls.append(0)\n"
        "    if len(calls) == 4: os.kill(os.getpid(), signal.SIGKILL)\n"
        "store._write = dies\n"
        "store.task_images(TASKS['EuroSAT'], 'test', sys.argv[1], size=8)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(root)], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    (folder,) = stores()
    assert (folder / "images.npy").stat().st_size == 128 + 12 * 3 * 8 * 8 and not (folder / "store.json").exists()
    store_chunk, store.CHUNK = store.CHUNK, 4
    try:
        data = task_images(EUROSAT, "test", root, size=8)
    finally:
        store.CHUNK = store_chunk
    assert torch.equal(data.images, plainly(images, 8)) and data.labels.tolist() == labels


def test_a_disk_that_fills_up_is_told_and_what_was_written_is_kept(eurosat, small_chunks):
    root, images, _ = eurosat
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (128 + 10 * 3 * 16 * 16, hard))  # ten images fit
    try:
        with pytest.raises(ValueError, match="images.npy stopped after 8 of 21 images"):
            task_images(EUROSAT, "test", root, size=16)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert torch.equal(task_images(EUROSAT, "test", root, size=16).images, plainly(images, 16))


def test_a_disk_without_room_is_told_before_anything_is_decoded(eurosat, monkeypatch):
    root, *_ = eurosat
    monkeypatch.setattr(store, "decode", None)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 2_000_000))
    with pytest.raises(ValueError, match=r"images.npy needs .* GB"):
        task_images(EUROSAT, "test", root, size=224)  # 3.2 MB


def test_size_and_differences_are_told_before_writing(eurosat, caplog):
    root, *_ = eurosat
    with caplog.at_level(logging.INFO, logger="adamerging_lib"):
        task_images(EUROSAT, "test", root, size=16)
    assert "EuroSAT test: 21 images in the files, 2,700 on the hub" in caplog.text
    assert "EuroSAT test: preparing 21 images of 16 px, 0.00 GB of the" in caplog.text
    caplog.clear()
    task_images(EUROSAT, "test", root, size=16)
    assert not caplog.text


def test_a_broken_image_is_found_with_its_row(tmp_path):
    images = hubfiles.pictures(7)
    images[5] = images[5][: len(images[5]) // 2]
    hubfiles.write_split(tmp_path, DTD, "test", images, [0] * 7, shards=2)
    with pytest.raises(ValueError, match=r"row 2 of .*test-00001-of-00002.parquet holds no image .*adamerging fetch"):
        task_images(DTD, "test", tmp_path, size=8)


def test_missing_files_are_named_with_the_command(tmp_path):
    with pytest.raises(ValueError, match="no images of DTD test: .*datasets/tanganke/dtd has no data/test-.*parquet"):
        task_images(DTD, "test", tmp_path)
    with pytest.raises(ValueError, match="adamerging fetch --profile clip-b32 --only datasets --tasks DTD"):
        task_images(DTD, "test", tmp_path)
    with pytest.raises(ValueError, match="has no data/validation-"):
        task_images(TASKS["Food101"], "test", tmp_path)
    files = hubfiles.write_split(tmp_path, DTD, "test", hubfiles.pictures(3), [0] * 3, shards=3)
    files[1].unlink()
    with pytest.raises(ValueError, match="number 00001 is missing"):
        task_images(DTD, "test", tmp_path)


def test_an_empty_split_and_impossible_sizes(tmp_path):
    hubfiles.write_split(tmp_path, DTD, "test", [], [])
    with pytest.raises(ValueError, match="hold no rows"):
        task_images(DTD, "test", tmp_path)
    for wrong in ({"size": 0}, {"count": 0}):
        with pytest.raises(ValueError, match="must be at least 1"):
            task_images(DTD, "test", tmp_path, **wrong)


def test_a_broken_store_says_so(eurosat):
    root, *_ = eurosat
    task_images(EUROSAT, "test", root, size=16)
    (folder,) = stores()
    os.truncate(folder / "images.npy", 1000)
    with pytest.raises(ValueError, match="the store .* is broken .*delete the folder"):
        task_images(EUROSAT, "test", root, size=16)


def test_fingerprints_are_the_tensors_own_and_read_nothing(eurosat, suite, monkeypatch):
    root, *_ = eurosat
    data = task_images(EUROSAT, "test", root, size=8)
    assert stored(stores()[0]) == fingerprints(data)
    with_store = replaced(suite, data)
    asked = []
    genuine = state.fingerprint
    monkeypatch.setattr(state, "fingerprint", lambda tensors: asked.append(list(tensors)) or genuine(tensors))
    digests = cache.fingerprint_suite(with_store, training=True)
    assert not asked
    in_memory = replaced(suite, TaskData(data.images.clone(), data.labels.clone(), data.classes))
    assert cache.fingerprint_suite(in_memory, training=True) == digests
    assert len(asked) == 2 * len(suite.tasks)


def test_a_store_that_was_written_to_or_cut_is_fingerprinted_anew(eurosat, suite):
    root, *_ = eurosat
    data = task_images(EUROSAT, "test", root, size=8)
    whole = cache.fingerprint_suite(replaced(suite, data))["images alpha"]
    cut = replaced(suite, data).some_images(20)
    assert cache.fingerprint_suite(cut)["images alpha"] == state.fingerprint({"": cut.test["alpha"].images}) != whole
    data.images[0] += 1
    assert (
        cache.fingerprint_suite(replaced(suite, data))["images alpha"] == state.fingerprint({"": data.images}) != whole
    )
    data.labels[0] = 0 if data.labels[0] else 1
    changed = cache.fingerprint_suite(replaced(suite, data), training=True)["training alpha"]
    assert changed == state.fingerprint({"images": data.images, "labels": data.labels})


def test_a_suite_of_stores_is_measured_and_adapted_as_one_in_memory(tmp_path, suite):
    images = hubfiles.pictures(23)
    hubfiles.write_split(tmp_path, PCAM, "test", images, [n % 2 for n in range(23)], label=Value("bool"))
    mapped = task_images(PCAM, "test", tmp_path, size=8)
    assert mapped.images.shape[1:] == suite.test["alpha"].images.shape[1:]
    held = TaskData(plainly(images, 8), mapped.labels.clone(), mapped.classes)
    results = []
    for data in (mapped, held):
        own = replaced(suite, data)
        fit = am.adamerge(own, steps=3, seed=0, progress=False, setting="inductive")
        whole = am.evaluate(own, am.merge("weight_averaging", own.task_vectors()), batch_size=5)
        results.append((fit.coefficients.values, am.evaluate(own, fit), whole, own.some_images(7).test))
    for first, second in zip(*results, strict=True):
        if isinstance(first, dict):
            assert all(torch.equal(first[task].images, second[task].images) for task in first)
        else:
            assert torch.equal(first, second) if isinstance(first, torch.Tensor) else first.equals(second)


def test_two_that_want_a_store_at_once_make_it_once(eurosat, monkeypatch):
    root, images, _ = eurosat
    seen, genuine = [], store.decode
    monkeypatch.setattr(store, "decode", lambda item, **options: seen.append(item[0]) or genuine(item, **options))
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: task_images(EUROSAT, "test", root, size=8), range(2)))
    assert len(seen) == 21 and all(torch.equal(data.images, plainly(images, 8)) for data in both)


def test_without_the_extra_the_command_is_named(eurosat, monkeypatch):
    root, *_ = eurosat
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match=r"pip install 'adamerging_lib\[clip\]'"):
        task_images(EUROSAT, "test", root)


def replaced(suite, data):
    """The toy suite, every task with these images."""
    everything = dict.fromkeys(suite.tasks, data)
    return replace(suite, test=everything, train=everything)


def stored(folder: Path) -> dict[str, str]:
    return json.loads((folder / "store.json").read_text())["fingerprints"]


def fingerprints(data) -> dict[str, str]:
    return {
        "": state.fingerprint({"": data.images}),
        "images labels": state.fingerprint({"images": data.images, "labels": data.labels}),
    }
