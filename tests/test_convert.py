"""Published checkpoints turned into safetensors files, once: what is in them, where it came from, and mistakes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from clips import GENUINE, ClassificationHead, ImageEncoder, clip, pickled, to_hf
from safetensors.torch import save_file
from strategies import assert_equal
from torch.func import functional_call

from adamerging_lib import TaskVectors, cli
from adamerging_lib import state as st
from adamerging_lib.checkpoints import convert, load_encoder, load_head
from adamerging_lib.state import CheckpointError

HERE = Path(__file__).parent / "genuine"
LEFTOVERS = (
    *("model.positional_embedding", "model.text_projection", "model.logit_scale"),
    *("model.token_embedding.weight", "model.ln_final.weight", "model.ln_final.bias"),
)


def tower(seed=0, **changes):
    return dict(clip(seed, **changes).visual.state_dict())


def without_projection(state):
    return {key: t for key, t in state.items() if key != "proj"}


def hf_folder(folder, state):
    folder.mkdir()
    save_file(to_hf(state), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"hidden_act": "quick_gelu", "num_attention_heads": 2}))
    return folder


@pytest.mark.parametrize("release", GENUINE)
def test_a_published_image_encoder(tmp_path, release):
    source, target = HERE / f"encoder_{release}.pt", tmp_path / "new" / "e.safetensors"
    report = convert(source, target)
    assert (report.kind, report.tensors, report.dropped) == ("task_vectors", 32, LEFTOVERS)
    metadata = st.load_metadata(target)
    assert json.loads(metadata["source"]) == {source.name: st.sha256(source)} == report.digests
    assert json.loads(metadata["dropped"]) == list(LEFTOVERS) and metadata["kind"] == "task_vectors"
    assert (metadata["activation"], metadata["heads"], metadata["format"]) == ("quick_gelu", "2", "pt")
    expected = st.load(HERE / f"expected_{release}.safetensors")
    written = st.load(target)
    assert report.numbers == sum(t.numel() for t in written.values())
    assert written.keys() == tower().keys()
    assert all(torch.equal(t, expected[f"model.visual.{key}"]) for key, t in written.items())
    encoder = clip().visual
    state = load_encoder(target, encoder)
    assert list(state) == list(encoder.state_dict())
    with torch.no_grad():
        found = functional_call(encoder, state, (expected["images"],))
    assert (found - expected["features"]).abs().max() < 1e-5
    with pytest.raises(CheckpointError, match="for activation 'quick_gelu', the encoder has 'gelu'"):
        load_encoder(target, clip(quick_gelu=False).visual)


@pytest.mark.parametrize("form", ["module", "legacy", "with text", "state dict", "checkpoint"])
@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
def test_forms_of_one_image_encoder_come_out_alike(tmp_path, monkeypatch, form):
    """Whole modules (P1, Tint), state dicts beside a model's name (P3), and a training checkpoint around one."""
    encoder = ImageEncoder(clip(), keep_text=form == "with text")
    path = tmp_path / "nonlinear_finetuned.pt"
    dropped = LEFTOVERS
    if form == "state dict":
        torch.save({**encoder.state_dict(), "model_name": "ViT-B-32"}, path)
        dropped += ("model_name",)
    elif form == "checkpoint":
        torch.save({"epoch": 3, "state_dict": encoder.state_dict(), "loss": torch.ones(1)}, path)
        dropped += ("epoch", "loss")
    else:
        pickled(monkeypatch, path, encoder, legacy=form == "legacy")
    report = convert(path, tmp_path / "e.safetensors")
    if form == "with text":
        assert set(LEFTOVERS) < set(report.dropped) and "model.transformer.resblocks.0.ln_1.weight" in report.dropped
    else:
        assert report.dropped == dropped
    assert report.kind == "task_vectors"
    assert_equal(dict(sorted(st.load(report.target).items())), dict(sorted(tower().items())))


@pytest.mark.parametrize("form", ["module", "legacy", "state dict"])
@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
def test_heads(tmp_path, monkeypatch, form):
    head = ClassificationHead(torch.randn(5, 6, generator=torch.Generator().manual_seed(0)))
    path = tmp_path / "head_MNISTVal.pt"
    if form == "state dict":
        torch.save(head.state_dict(), path)
    else:
        pickled(monkeypatch, path, head, legacy=form == "legacy")
    report = convert(path, tmp_path / "h.safetensors")
    assert (report.kind, report.dropped, report.numbers) == ("head", ("bias",), 30)
    for file in (path, report.target):
        assert torch.equal(load_head(file), head.weight)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (lambda: ClassificationHead(torch.ones(2, 3), normalize=False), "does not normalise features"),
        (lambda: ClassificationHead(torch.ones(2, 3), bias=0.5), "a bias that is not zero"),
        (lambda: ClassificationHead(torch.full((2, 3), torch.nan)), "'weight' of .* holds NaN or Inf"),
        (lambda: torch.nn.LayerNorm(3), "no classification head; it holds weight, bias"),
    ],
)
def test_heads_that_compute_something_else_are_refused(tmp_path, monkeypatch, head, message):
    path = pickled(monkeypatch, tmp_path / "head.pt", head())
    with pytest.raises(CheckpointError, match=message):
        convert(path, tmp_path / "h.safetensors")


def test_an_expert_of_the_hub_and_its_base(tmp_path):
    """The published experts hold no projection; converted with their base they are whole and can be merged as files."""
    base, expert = tower(0), tower(1)
    base_file = convert(hf_folder(tmp_path / "base", base), tmp_path / "base.safetensors")
    assert base_file.kind == "hf" and base_file.facts == {"activation": "quick_gelu", "heads": "2"}
    folder = hf_folder(tmp_path / "expert", without_projection(expert))
    alone = convert(folder, tmp_path / "alone.safetensors")
    assert alone.tensors == 31 and json.loads(st.load_metadata(alone.target)["source"]).keys() == {"model.safetensors"}
    whole = convert(folder, tmp_path / "whole.safetensors", base=base_file.target)
    assert torch.equal(st.load(whole.target)["proj"], base["proj"])
    encoder = clip().visual
    for file in (alone.target, whole.target, folder):
        assert_equal(load_encoder(file, encoder, base), expert | {"proj": base["proj"]})
    tv = TaskVectors.from_state_dicts(base, {"a": load_encoder(alone.target, encoder, base)})
    assert not tv.vectors["proj"].any() and tv.vectors["conv1.weight"].any()
    command = ["merge", "--method", "task_arithmetic", "--pretrained", str(base_file.target), "--expert"]
    assert cli.main([*command, f"a={whole.target}", "--out", str(tmp_path / "merged.safetensors")]) == 0


def test_any_other_model_under_its_own_names(tmp_path):
    state = {"embed.weight": torch.randn(4, 3), "steps": torch.arange(3), "half": torch.ones(2).half()}
    torch.save(state, tmp_path / "m.pt")
    with pytest.raises(CheckpointError, match="no CLIP image encoder or head; it holds embed.weight, .*--kind"):
        convert(tmp_path / "m.pt", tmp_path / "m.safetensors")
    report = convert(tmp_path / "m.pt", tmp_path / "m.safetensors", kind="state_dict")
    assert (report.tensors, report.dropped, report.facts) == (3, (), {})
    assert_equal(dict(sorted(st.load(report.target).items())), dict(sorted(state.items())))


def test_mistakes(tmp_path):
    source, target = HERE / "encoder_2_0_2.pt", tmp_path / "e.safetensors"
    for arguments, message in [
        ((source, target, "clip"), "kind 'clip' is unknown"),
        ((source, tmp_path / "e.pt"), r"e\.pt should be a file that ends in \.safetensors"),
        ((source, target, "hf"), "not of kind 'hf'; it looks like task_vectors"),
        ((HERE / "head_2_0_2.pt", target, "task_vectors"), "not of kind 'task_vectors'; it looks like head"),
        ((tmp_path, target), "is a folder without model.safetensors, pytorch_model.bin .* it holds no files"),
        ((tmp_path / "none.pt", target), "no checkpoint at"),
        ((tmp_path / "none.bin", target), "no checkpoint at"),
        ((tmp_path / "none.safetensors", target), "no checkpoint at"),
    ]:
        with pytest.raises(ValueError, match=message):
            convert(*arguments[:2], **dict(zip(["kind"], arguments[2:], strict=False)))
    with pytest.raises(ValueError, match="a checkpoint of kind 'head' needs none"):
        convert(HERE / "head_2_0_2.pt", target, base=source)
    assert not list(tmp_path.iterdir())
    convert(source, target)
    with pytest.raises(ValueError, match="e.safetensors exists: .*--force"):
        convert(HERE / "encoder_2_24_0.pt", target)
    with pytest.raises(ValueError, match="e.safetensors is the source"):
        convert(target, target, force=True)
    before = st.sha256(target)
    convert(HERE / "encoder_2_24_0.pt", target, force=True)
    assert "encoder_2_24_0.pt" in st.load_metadata(target)["source"]
    assert st.sha256(target) != before


def test_what_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(ValueError, match=r"e\.safetensors needs .* GB"):
        convert(HERE / "encoder_2_0_2.pt", tmp_path / "new" / "e.safetensors")
    monkeypatch.undo()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("adamerging_lib.files.checkpoint.os.replace", full)
    with pytest.raises(OSError, match="No space left"):
        convert(HERE / "encoder_2_0_2.pt", tmp_path / "e.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "model.pt"])
def test_half_a_download(tmp_path, name):
    state = to_hf(without_projection(tower()))
    save_file(state, tmp_path / name) if name.endswith("safetensors") else torch.save(state, tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    for share in (0, 0.01, 0.5, 0.99):
        (tmp_path / name).write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(CheckpointError, match=rf"{name} is (empty|not a readable .*): .*fetch it again"):
            convert(tmp_path / name, tmp_path / "e.safetensors")


def test_broken_numbers_and_strangers(tmp_path):
    state = {f"visual.{key}": t for key, t in tower().items()}
    for change, message in [
        ({"visual.ln_pre.weight": torch.full((16,), torch.inf)}, "'ln_pre.weight' of .* holds NaN or Inf"),
        ({"probe.weight": torch.ones(2)}, "tensors beside an image encoder, such as 'probe.weight'"),
        ({"visual.attnpool.weight": torch.ones(2)}, "is no CLIP ViT: it has attnpool.weight"),
        ({"visual.transformer.resblocks.2.ln_1.weight": torch.ones(16)}, "it lacks transformer.resblocks.2.attn"),
    ]:
        torch.save(state | change, tmp_path / "m.pt")
        with pytest.raises(CheckpointError, match=message):
            convert(tmp_path / "m.pt", tmp_path / "e.safetensors")
    torch.save([1, 2], tmp_path / "m.pt")
    for name in ("m.pt", "m.bin"):
        shutil.copy(tmp_path / "m.pt", tmp_path / name) if name != "m.pt" else None
        with pytest.raises(CheckpointError, match=f"{name} holds a list, not a model or a state dict"):
            convert(tmp_path / name, tmp_path / "e.safetensors")


def test_the_command(tmp_path, capsys):
    source, target = HERE / "encoder_2_0_2.pt", tmp_path / "e.safetensors"
    assert cli.main(["convert", str(source), str(target)]) == 0
    said = capsys.readouterr().out
    for words in (
        "encoder_2_0_2.pt is an image encoder of open_clip", "activation quick_gelu, heads 2",
        "dropped 6 entries: model.positional_embedding, ", "model.ln_final.bias",
        f"wrote {target}, 32 tensors, 7,584 numbers",
    ):  # fmt: skip
        assert words in said
    assert cli.main(["convert", str(source), str(target)]) == 2
    assert "exists: choose another file, or replace it with --force" in capsys.readouterr().err
    assert cli.main(["convert", str(source), str(target), "--force", "--kind", "task_vectors"]) == 0
    capsys.readouterr()
    assert cli.main(["convert", str(source), str(tmp_path / "h.safetensors"), "--kind", "head"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("adamerging convert: ") and "is not of kind 'head'; it looks like task_vectors" in said
    folder = hf_folder(tmp_path / "expert", without_projection(tower(1)))
    assert cli.main(["convert", str(folder), str(tmp_path / "x.safetensors"), "--base", str(target)]) == 0
    assert "model.safetensors is a CLIP vision model of Hugging Face" in capsys.readouterr().out
    assert "proj" in st.load(tmp_path / "x.safetensors")
    torch.save({"model": {"w": torch.ones(1)}, **{f"entry {n}": n for n in range(30)}}, tmp_path / "m.pt")
    arguments = ["convert", str(tmp_path / "m.pt"), str(tmp_path / "m.safetensors"), "--kind", "state_dict"]
    assert cli.main(arguments) == 0
    assert "dropped 30 entries: entry 0, " in (said := capsys.readouterr().out)
    assert "entry 9 and 20 more, which the file's metadata name" in said
    assert cli.main(["inspect", str(tmp_path / "m.safetensors")]) == 0
    assert "entry 29" in capsys.readouterr().out
