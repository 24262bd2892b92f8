"""Published checkpoints turned into safetensors files, once: what is in them, where it came from, and mistakes."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from clips import GENUINE, ClassificationHead, ImageEncoder, clip, pickled, to_hf
from safetensors.torch import load_file, save_file
from strategies import assert_equal
from torch.func import functional_call

from adamerging_lib import TaskVectors, cli
from adamerging_lib import state as st
from adamerging_lib.checkpoints import convert, load_encoder, load_head
from adamerging_lib.files.checkpoint import CheckpointFile
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
        (lambda: torch.nn.LayerNorm(3), "not a classification head; it holds weight, bias"),
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


OTHERS = {
    "bert": {"model_type": "bert", "layer_norm_eps": 1e-12, "num_attention_heads": 12},
    "vit": {"model_type": "vit", "layer_norm_eps": 1e-12, "hidden_act": "gelu"},
    "dinov2": {"model_type": "dinov2", "layer_norm_eps": 1e-6},
    "siglip": {"model_type": "siglip", "vision_config": {"layer_norm_eps": 1e-6, "hidden_act": "gelu_pytorch_tanh"}},
    "mine": {"layer_norm_eps": None},
    "a list": [1, 2],
    "no JSON": None,
}


@pytest.mark.parametrize("form", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("model", OTHERS)
def test_a_configuration_of_another_model_is_no_business_of_a_state_dict(tmp_path, model, form):
    state = {"encoder.layer.0.dense.weight": torch.randn(4, 4), "encoder.layer.0.LayerNorm.weight": torch.ones(4)}
    (tmp_path / "config.json").write_text("{" if model == "no JSON" else json.dumps(OTHERS[model]))
    save_file(state, tmp_path / form) if form.endswith("safetensors") else torch.save(state, tmp_path / form)
    for source in (tmp_path, tmp_path / form):
        done = convert(source, tmp_path / "out.safetensors", kind="state_dict", force=True)
        assert_equal(dict(sorted(st.load(done.target).items())), dict(sorted(state.items())))
        assert done.facts == {}
        with pytest.raises(CheckpointError, match="not a CLIP image encoder or head.* --kind state_dict"):
            convert(source, tmp_path / "other.safetensors")


@pytest.mark.parametrize("kind", ["SiglipVisionModel", "ViTModel", "Dinov2Model", "BertModel"])
def test_encoders_of_others_are_not_taken_for_clips(tmp_path, kind):
    small = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    small |= {"vocab_size": 10} if kind == "BertModel" else {"image_size": 8, "patch_size": 4}
    config = getattr(transformers, kind.replace("Model", "Config"))(**small)
    model = getattr(transformers, kind)(config)
    model.save_pretrained(tmp_path / "folder")
    with pytest.raises(CheckpointError, match="is not a CLIP image encoder or head"):
        convert(tmp_path / "folder", tmp_path / "out.safetensors")
    done = convert(tmp_path / "folder", tmp_path / "out.safetensors", kind="state_dict")
    assert_equal(dict(sorted(st.load(done.target).items())), dict(sorted(load_file(done.source).items())))


def bins(folder, state, parts=2, index=True):
    folder.mkdir()
    names = [f"pytorch_model-{n + 1:05}-of-{parts:05}.bin" for n in range(parts)]
    where = {key: names[place % parts] for place, key in enumerate(state)}
    for name in names:
        torch.save({key: t for key, t in state.items() if where[key] == name}, folder / name)
    if index:
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": where}))
    return names


@pytest.mark.parametrize("index", [True, False])
def test_a_checkpoint_in_several_bin_files(tmp_path, index, capsys):
    state = {f"layers.{n}.weight": torch.randn(4, 4) for n in range(5)} | {"ids": torch.arange(3)}
    names = bins(tmp_path / "model", state, 3, index)
    folder = tmp_path / "model"
    sources = [folder, folder / "pytorch_model.bin.index.json"] if index else [folder]
    for source in sources:
        done = convert(source, tmp_path / "all.safetensors", kind="state_dict", force=True)
        assert_equal(dict(sorted(st.load(done.target).items())), dict(sorted(state.items())))
        assert set(done.digests) == set(names)
        assert cli.main(["inspect", str(source)]) == 2
        said = capsys.readouterr().err
        assert "is a pickle" in said and "cut short" not in said
        program, *words = shlex.split(said.splitlines()[1])
        assert cli.main(words) == 0 and len(CheckpointFile(folder)) == 6  # the mend that is printed
        (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=f"{names[0]} is only a part, one of 3 files: name the folder"):
        convert(folder / names[0], tmp_path / "part.safetensors", kind="state_dict")
    (folder / names[1]).unlink()
    with pytest.raises(CheckpointError, match=rf"{names[1]}.* fetch all its parts|number 2 is missing: fetch all"):
        convert(folder, tmp_path / "part.safetensors", kind="state_dict")
    assert not (tmp_path / "part.safetensors").exists()


def test_the_index_of_bin_files_decides_for_every_name(tmp_path):
    names = bins(tmp_path / "model", {"a": torch.zeros(1), "b": torch.zeros(1)})
    torch.save({"a": torch.ones(1), "b": torch.zeros(1), "c": torch.ones(1)}, tmp_path / "model" / names[1])
    done = convert(tmp_path / "model", tmp_path / "m.safetensors", kind="state_dict")
    assert {key: t.item() for key, t in st.load(done.target).items()} == {"a": 0, "b": 0}
    torch.save({"a": torch.ones(1)}, tmp_path / "model" / names[1])
    with pytest.raises(CheckpointError, match=f"{names[1]} lacks 'b', which .*index.json promises"):
        convert(tmp_path / "model", tmp_path / "m.safetensors", kind="state_dict", force=True)
    (tmp_path / "model" / "pytorch_model.bin.index.json").unlink()
    with pytest.raises(CheckpointError, match="'a' lies in two of the files .* no index says which"):
        convert(tmp_path / "model", tmp_path / "m.safetensors", kind="state_dict", force=True)


def test_links_as_targets_and_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    torch.save({"a": torch.ones(2)}, tmp_path / "m.pt")
    assert convert("~/m.pt", "~/m.safetensors", kind="state_dict").target == tmp_path / "m.safetensors"
    assert not (Path.cwd() / "~").exists()
    link = tmp_path / "link.safetensors"
    link.symlink_to(tmp_path / "far" / "there.safetensors")
    with pytest.raises(ValueError, match="link.safetensors is a link to .*there.safetensors, which is not there: "):
        convert("~/m.pt", link, kind="state_dict")
    convert("~/m.pt", link, kind="state_dict", force=True)
    assert link.is_symlink() and st.load(tmp_path / "far" / "there.safetensors")["a"].tolist() == [1, 1]
    link.unlink()
    link.symlink_to(link.name)
    with pytest.raises(ValueError, match="link.safetensors is a link to link.safetensors, which is not there"):
        convert("~/m.pt", link, kind="state_dict")
    link.unlink()
    link.symlink_to(tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match="is the source: choose another file"):
        convert("~/m.safetensors", link, kind="state_dict", force=True)


def test_masks_of_infinity_are_kept_and_broken_numbers_are_not(tmp_path):
    mask = torch.full((3, 3), -float("inf")).triu(1)
    torch.save({"mask": mask, "weight": torch.ones(2)}, tmp_path / "m.pt")
    done = convert(tmp_path / "m.pt", tmp_path / "m.safetensors", kind="state_dict")
    assert torch.equal(st.load(done.target)["mask"], mask)
    for number in ("nan", "inf"):
        torch.save({"weight": torch.tensor([1.0, float(number)])}, tmp_path / "m.pt")
        with pytest.raises(CheckpointError, match="'weight' of .* holds NaN or Inf"):
            convert(tmp_path / "m.pt", tmp_path / "n.safetensors", kind="state_dict")
    assert not (tmp_path / "n.safetensors").exists()


def test_packed_numbers_of_four_bits_are_listed_and_named(tmp_path, capsys):
    packed = torch.arange(8, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)
    for name in ("base", "a"):
        st.save(tmp_path / f"{name}.safetensors", {"x.weight": packed, "y": torch.ones(2)})
    assert cli.main(["inspect", str(tmp_path / "a.safetensors")]) == 0
    assert "float4_e2m1fn_x2" in capsys.readouterr().out
    words = ["merge", "--method", "ties", "--pretrained", str(tmp_path / "base.safetensors"), "--expert"]
    assert cli.main([*words, f"a={tmp_path / 'a.safetensors'}", "--out", str(tmp_path / "m.safetensors")]) == 2
    said = capsys.readouterr().err
    assert "x.weight" in said and "Traceback" not in said and not (tmp_path / "m.safetensors").exists()


def test_any_other_model_under_its_own_names(tmp_path):
    state = {"embed.weight": torch.randn(4, 3), "steps": torch.arange(3), "half": torch.ones(2).half()}
    torch.save(state, tmp_path / "m.pt")
    with pytest.raises(CheckpointError, match="not a CLIP image encoder or head; it holds embed.weight, .*--kind"):
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
        ({"visual.attnpool.weight": torch.ones(2)}, "is not a CLIP ViT: it has attnpool.weight"),
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
