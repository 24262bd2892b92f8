"""`adamerging fetch` against a hub on this machine: told first, resumed, verified, and helpful without a hub."""

from __future__ import annotations

import errno
import logging
import shutil

import pytest
from mirror import Mirror, put_data, put_models, served

from adamerging_lib.cli import main
from adamerging_lib.worlds.clip import fetch, hub

TASKS = ["MNIST", "EuroSAT"]
ARGUMENTS = ["fetch", "--profile", "clip-b32", "--tasks", "MNIST,EuroSAT"]
MODEL = "models/tanganke/clip-vit-base-patch32_mnist/model.safetensors"


@pytest.fixture(scope="session")
def there(tmp_path_factory):
    """What the hub has."""
    root = tmp_path_factory.mktemp("hub")
    put_models(root, "clip-b32", TASKS)
    for task in TASKS:
        put_data(root, task, ("train", "test"), files=2)
    return root


@pytest.fixture
def mirror(there, monkeypatch):
    mirror = Mirror(there)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)  # between its attempts
    # What an attempt got since its last whole chunk is lost: 10 MB would be more than these files have.
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)
    monkeypatch.setattr(logging.getLogger("huggingface_hub"), "disabled", True)
    with served(mirror) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        yield mirror


@pytest.fixture
def root(tmp_path, monkeypatch):
    root = tmp_path / "assets"
    monkeypatch.setenv("ADAMERGING_ASSETS", str(root))
    return root


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_what_is_missing_is_told_and_nothing_is_done_in_a_dry_run(mirror, root, capsys):
    assert main([*ARGUMENTS, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert f"missing: {MODEL}, " in said and "missing: datasets/ylecun/mnist/mnist/test-00001-of-00002.parquet" in said
    assert "https://huggingface.co/openai/clip-vit-base-patch32 " in said and " mit" in said
    assert "train" not in said
    last = said.splitlines()[-1]
    assert f"to fetch into {root}, where " in last and last.endswith(" are free")
    assert not root.exists() and not mirror.downloads


def test_everything_arrives_under_the_hubs_names_and_is_not_fetched_twice(mirror, there, root, capsys):
    assert main(ARGUMENTS) == 0
    wanted = [name for name in names(there) if "README" not in name and "/train-" not in name]
    assert names(root) == wanted
    assert all((root / name).read_bytes() == (there / name).read_bytes() for name in wanted)
    assert main([*ARGUMENTS, "--splits", "test,train"]) == 0
    assert sorted(mirror.downloads) == [name for name in names(there) if "README" not in name]
    capsys.readouterr()
    assert main(ARGUMENTS) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "nothing is missing"


@pytest.mark.parametrize(("only", "other"), [("models", "datasets"), ("datasets", "models")])
def test_one_of_the_two(mirror, root, only, other):
    assert main([*ARGUMENTS, "--only", only]) == 0
    assert (root / only).is_dir() and not (root / other).exists()


def test_tasks_go_by_role_too(mirror, root):
    assert main(["fetch", "--profile", "clip-b32", "--tasks", "digits", "--only", "datasets"]) == 0
    assert names(root)[0].startswith("datasets/ylecun/mnist/")


def test_a_broken_connection_is_taken_up_where_it_stopped(mirror, there, root, capsys):
    mirror.cut["model.safetensors"] = 20_000  # again and again, within one run
    assert main(["fetch", "--profile", "clip-b32", "--tasks", "MNIST", "--only", "models"]) == 0
    ranges = [asked for name, asked in mirror.ranges if name == "model.safetensors"]
    assert ranges[:3] == ["", "bytes=20000-", "bytes=40000-"]
    assert (root / MODEL).read_bytes() == (there / MODEL).read_bytes()


def test_an_interrupted_run_is_taken_up_by_the_next(mirror, there, root, capsys, monkeypatch):
    def interrupted(seconds):
        raise KeyboardInterrupt

    only = ["fetch", "--profile", "clip-b32", "--tasks", "MNIST", "--only", "models"]
    mirror.cut["model.safetensors"] = 100_000
    with monkeypatch.context() as patch:
        patch.setattr("huggingface_hub.file_download.time.sleep", interrupted)
        assert main(only) == 130
    parts = [name for name in names(root) if name.endswith(".part")]
    assert len(parts) == 1 and (root / parts[0]).stat().st_size == 100_000
    mirror.cut.clear()
    mirror.ranges.clear()
    assert main(only) == 0
    assert ("model.safetensors", "bytes=100000-") in mirror.ranges
    assert (root / MODEL).read_bytes() == (there / MODEL).read_bytes()
    assert not [name for name in names(root) if name.endswith((".part", ".lock"))]


def test_half_a_download_of_somebody_else_is_noticed_and_completed(mirror, there, root, capsys):
    half = (there / MODEL).read_bytes()[:3000]
    (root / MODEL).parent.mkdir(parents=True)
    (root / MODEL).write_bytes(half)
    assert main([*ARGUMENTS, "--only", "models", "--dry-run"]) == 0
    assert f"cut short: {MODEL}" in capsys.readouterr().out and (root / MODEL).read_bytes() == half
    assert main([*ARGUMENTS, "--only", "models"]) == 0
    assert ("model.safetensors", "bytes=3000-") in mirror.ranges
    assert (root / MODEL).read_bytes() == (there / MODEL).read_bytes()


def test_another_file_of_that_name_is_named_and_replaced_only_by_force(mirror, there, root, capsys):
    other = there / "models/tanganke/clip-vit-base-patch32_eurosat/model.safetensors"
    (root / MODEL).parent.mkdir(parents=True)
    shutil.copy(other, root / MODEL)
    assert main(ARGUMENTS) == 2
    caught = capsys.readouterr()
    assert f"is not the hub's file: {MODEL}. Move it away, or replace it with --force" in caught.err
    assert (root / MODEL).read_bytes() == other.read_bytes() and not mirror.downloads
    assert main([*ARGUMENTS, "--force"]) == 0
    assert (root / MODEL).read_bytes() == (there / MODEL).read_bytes()


def test_what_arrives_with_another_digest_never_takes_the_name(mirror, root, monkeypatch, capsys):
    (file,) = [f for f in fetch.ask([hub.expert_model("clip-b32", "MNIST")]) if f.sha256]
    lie = file.__class__(**{**vars(file), "sha256": "0" * 64})
    with pytest.raises(ValueError, match="did not arrive as the hub has it"):
        fetch.download(lie, root)
    assert not [name for name in names(root) if name.endswith((".safetensors", ".part"))]


def test_a_disk_too_small_is_told_before_anything_is_fetched(mirror, root, monkeypatch, capsys):
    usage = shutil.disk_usage(root.parent)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=1000))
    assert main(ARGUMENTS) == 2
    assert "GB and the disk has 0.00 GB: make room first" in capsys.readouterr().err
    assert not mirror.downloads and not root.exists()


def test_a_disk_that_fills_up_midway(mirror, root, monkeypatch, capsys):
    import huggingface_hub.file_download as transfer

    def full(url, temp_file, **_):
        temp_file.write(b"x" * 10)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(transfer, "http_get", full)
    assert main([*ARGUMENTS, "--only", "models"]) == 2
    said = capsys.readouterr().err
    assert "the disk is full" in said and "ADAMERGING_ASSETS" in said and "what came is kept" in said


def test_without_a_hub_it_says_which_files_to_put_where(root, monkeypatch, capsys):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert main(ARGUMENTS) == 2
    said = capsys.readouterr().err
    assert "the hub at http://127.0.0.1:9 cannot be reached" in said and f"put them below {root}" in said
    for name in (MODEL, "models/openai/clip-vit-base-patch32/config.json"):
        assert f"\n  {name}" in said
    assert "\n  datasets/ylecun/mnist/mnist/test-*.parquet" in said and "about 0.35 GB, from https://hugg" in said
    assert "HF_ENDPOINT" in said


def test_without_a_hub_what_is_there_is_looked_at(there, root, monkeypatch, capsys):
    shutil.copytree(there, root)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert main(ARGUMENTS) == 0
    assert "nothing is missing, but nothing was verified either" in capsys.readouterr().out
    (root / MODEL).write_bytes((root / MODEL).read_bytes()[:-7])
    (root / "datasets/tanganke/eurosat/data/test-00001-of-00002.parquet").unlink()
    assert main(ARGUMENTS) == 2
    said = capsys.readouterr().err
    assert f"{MODEL} is cut short: put it there again, whole" in said and "number 00001 is missing" in said


def test_offline_mode_is_no_hub(root, monkeypatch, capsys):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert main(ARGUMENTS) == 2
    assert "cannot be reached (OfflineModeIsEnabled" in capsys.readouterr().err


def test_a_hub_that_refuses(mirror, root, capsys):
    mirror.gated.add("tanganke/clip-vit-base-patch32_mnist")
    assert main(ARGUMENTS) == 2
    assert "wants its terms accepted there, and `hf auth login` here" in capsys.readouterr().err
    assert main(["fetch", "--profile", "clip-b16", "--only", "models"]) == 2
    assert "no repository 'openai/clip-vit-base-patch16'" in capsys.readouterr().err


def test_experts_that_are_not_on_the_hub_are_named(mirror, root, capsys):
    arguments = ["fetch", "--profile", "clip-b32-p1", "--tasks", "MNIST"]
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert "https://github.com/mlfoundations/task_vectors" in said
    assert f"put them below {root}:\n  models/task_vectors/ViT-B-32/MNIST/finetuned.pt" in said
    assert (root / "models/openai/clip-vit-base-patch32/model.safetensors").is_file()  # everything else is there
    (root / "models/task_vectors/ViT-B-32/MNIST").mkdir(parents=True)
    (root / "models/task_vectors/ViT-B-32/MNIST/finetuned.pt").write_bytes(b"as it was published")
    assert main(arguments) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tasks", "MNISt"], "has no task 'MNISt': did you mean 'MNIST'?"),
        (["--tasks", "MNIST,digits"], "named twice"),
        (["--tasks", "MNIST", "--splits", "tset"], "has no split 'tset': its splits are train, test"),
    ],
)
def test_mistakes(mirror, root, capsys, options, message):
    assert main(["fetch", "--profile", "clip-b32", *options]) == 2
    assert message in capsys.readouterr().err


def test_what_is_whole_is_told_by_its_own_format(there, tmp_path):
    for name in (MODEL, "datasets/tanganke/eurosat/data/test-00000-of-00002.parquet",
                 "models/openai/clip-vit-base-patch32/config.json"):  # fmt: skip
        copy = tmp_path / name.rpartition("/")[2]
        content = (there / name).read_bytes()
        for cut, expected in ((None, True), (-1, False), (len(content) // 2, False), (3, False), (0, False)):
            copy.write_bytes(content[:cut])
            assert hub.whole(copy) is expected, (name, cut)
