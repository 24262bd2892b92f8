"""The command `adamerging adapt --model`: folders of images and files of texts, to a merged model that is used."""

from __future__ import annotations

import csv
import json
import shlex

import adapted
import pytest
import torch
import transformers
from PIL import Image

import adamerging_lib as am
from adamerging_lib.adapting.readers import Texts
from adamerging_lib.cli import main
from adamerging_lib.runtime.compat import import_timm
from adamerging_lib.state import load, save

TIMM = "test_resnet"
IMAGES = f"adapt --model timm:{TIMM} --pretrained base.safetensors --expert pets=pets.safetensors --expert food=food.pt"
IMAGES += " --data pets=pets --data food=food --private fc.* --batch-size 2 --device cpu --out merged"
TEXTS = "adapt --model transformers:one --pretrained one --expert one=one --expert two=two --private classifier.*"
TEXTS += " --data one=one.csv --data two=two.txt --batch-size 2 --device cpu --out merged"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "cat", "dog", "is", "the"]


def network(classes: int):
    return import_timm().create_model(TIMM, pretrained=False, num_classes=classes)


def moved(state, seed: int):
    generator = torch.Generator().manual_seed(seed)
    moves = {
        k: 0.02 * torch.randn(t.shape, generator=generator).abs() for k, t in state.items() if t.is_floating_point()
    }
    return {k: t + moves.get(k, 0) for k, t in state.items()}


@pytest.fixture
def images(tmp_path, monkeypatch):
    """A timm base, two experts with heads of 2 and 3 classes, and a folder of images per class."""
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        base, heads = network(5).state_dict(), {"pets": network(2).fc, "food": network(3).fc}
    save("base.safetensors", base)
    for seed, (task, head) in enumerate(heads.items()):
        own = moved(base, seed) | {f"fc.{key}": t for key, t in head.state_dict().items()}
        save(f"{task}.safetensors", own) if task == "pets" else torch.save(own, f"{task}.pt")
        for c in range(head.out_features):
            (tmp_path / task / f"class {c}").mkdir(parents=True)
            for i in range(2):
                Image.new("RGB", (12 + i, 12), (40 * c, 90 * i, 120)).save(tmp_path / task / f"class {c}" / f"{i}.png")
    return tmp_path


@pytest.fixture
def texts(tmp_path, monkeypatch):
    """Two tiny BERTs as transformers saves them, with their tokenizer, and texts."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    tokenizer = transformers.BertTokenizer(str(tmp_path / "vocab.txt"), model_max_length=8)
    for seed, name in enumerate(("one", "two")):
        adapted.quiet(adapted.made("bert", seed).save_pretrained, name)
        tokenizer.save_pretrained(name)
    rows = [("the cat is good", 0), ("the dog is bad", 1), ("good", 2)]
    with open("one.csv", "w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    (tmp_path / "two.txt").write_text("the cat\n\nis bad\nthe dog is good\n")
    return tmp_path


def run(line: str, *more: str) -> int:
    return main([*shlex.split(line), *more])


def test_images_to_a_model_that_is_used(images, capsys):
    assert run(IMAGES, "--steps", "3", "--dry-run") == 0
    said = capsys.readouterr().out
    assert "pets: 4 inputs in 2 batches" in said and "nothing was written" in said and not (images / "merged").exists()
    test = ["--test", "pets=pets", "--test", "food=food"]
    assert run(IMAGES, "--steps", "3", "--set", "statistics=batch", "--set", "lr=0.05", *test) == 0
    said = capsys.readouterr().out
    assert "coefficients of 2 tasks" in said and "accuracy" in said and "merged: 3 steps in" in said
    assert not (images / "merged.run.safetensors").exists()
    fit = am.load_adapted("merged", network(7))
    assert fit.hyper["statistics"] == "batch" and fit.hyper["private"] == ["fc.*"] and fit.hyper["lr"] == 0.05
    model = fit.model("food")
    loader = am.image_batches("food", model, batch_size=4, shuffle=False)
    table = am.evaluate(fit, {"food": loader})
    assert table["n"].tolist() == [6] and f"{table['accuracy'][0]:.6f}" in said
    assert next(iter(loader))[1].tolist() == [0, 0, 1, 1]
    assert run(IMAGES) == 2 and "merged exists: name another folder" in capsys.readouterr().err
    assert run(IMAGES, "--steps", "1", "--force") == 0
    assert len(am.load_adapted("merged", network(7)).history) == 1


def test_the_recommended_recipe(images, capsys):
    """The options as the help has them, with fewer steps."""
    assert main(["adapt", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    options = said[said.index("add --objective imitation") + len("add ") :].split(". ")[0]
    assert run(IMAGES, *shlex.split(options), "--steps", "2") == 0
    fit = am.load_adapted("merged", network(7))
    assert fit.hyper["vectors"] == "tsv" and fit.coefficients.granularity == "component"
    assert fit.hyper["objective"] == "imitation" and fit.hyper["lr"] == 0.03 and len(fit.history) == 2


def test_a_stopped_run_goes_on(images, capsys, monkeypatch):
    from adamerging_lib.adapting import adapted as module

    assert run(IMAGES, "--steps", "4") == 0
    whole = load("merged/trajectory.safetensors")["trajectory"]
    with monkeypatch.context() as patch:
        patch.setattr(module.Adapted, "save", lambda *given, **named: (_ for _ in ()).throw(ValueError("no room")))
        assert run(IMAGES.replace("merged", "again"), "--steps", "2") == 2
    assert (images / "again.run.safetensors").exists()
    assert run(IMAGES.replace("merged", "again"), "--steps", "4") == 0
    assert torch.equal(load("again/trajectory.safetensors")["trajectory"], whole)


def test_texts_to_a_model_that_is_used(texts, capsys):
    assert run(TEXTS, "--steps", "2", "--objective", '{"diversity": 1}', "--test", "one=one.csv") == 0
    said = capsys.readouterr().out
    assert "merged: 2 steps" in said and " one " in said
    fit = am.load_adapted("merged", adapted.made("bert"))
    assert fit.hyper["objective"] == {"diversity": 1}
    tokenizer = transformers.AutoTokenizer.from_pretrained("one")
    loader = am.text_batches("one.csv", tokenizer, batch_size=3)
    assert sorted(next(iter(loader))) == ["attention_mask", "input_ids", "labels", "token_type_ids"]
    assert f"{am.evaluate(fit, {'one': loader})['loss'][0]:.5f}" in said


def test_pairs_and_kinds_of_files(tmp_path):
    rows = [{"premise": "a", "hypothesis": "b", "label": 1}, {"premise": "c", "hypothesis": "d", "label": "yes"}]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "a.tsv").write_text("premise\thypothesis\tlabel\na\tb\t1\nc\td\tyes\n")
    for kind in ("json", "jsonl", "tsv"):
        found = Texts(tmp_path / f"a.{kind}", labels={"no": 0, "yes": 1})
        assert found[1] == (("c", "d"), 1) and len(found) == 2
        assert Texts(tmp_path / f"a.{kind}", ["hypothesis"], labelled=False)[0] == (("b",), None)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "label\n1\n", "which column of .* is the text"),
        ("a.csv", "one,two\nx,y\n", "It has one, two: name it with --columns A"),
        ("a.csv", "text,label\nx,0.5\n", "row 1 of .* has the label '0.5': give a whole number or one of no"),
        ("a.csv", "text,label\nx,maybe\n", "'maybe'"),
        ("a.jsonl", '{"text": 3}', "row 1 of .* has no text under 'text'"),
        ("a.jsonl", "[1]", "should hold objects"),
        ("a.json", "{", "cannot be read as .json"),
        ("a.txt", "", "holds no text"),
        ("a.txt", b"\xff\xfe\x00", "cannot be read as .txt in UTF-8"),
        ("a.parquet", "", "should be one of .txt"),
    ],
)
def test_files_that_are_none(name, content, message, tmp_path):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message):
        Texts(path, labels={"no": 0})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("timm:test_resnet", "timm:test_resent"), "timm has no model 'test_resent': did you mean 'test_resnet'?"),
        (("timm:test_resnet", "test_resnet"), "give timm:NAME or transformers:FOLDER"),
        (("timm:test_resnet", "transformers:pets"), "pets holds no config.json"),
        (("--pretrained base.safetensors", ""), "name the base that the experts were fine-tuned from: --pretrained"),
        (("--data food=food", ""), "expert 'food' has no data: give --data food=FOLDER_OR_FILE"),
        (
            ("--data food=food", "--data foot=food --data food=food"),
            "'foot' is not an expert's name: did you mean 'food'?",
        ),
        (("--data food=food", "--data food"), "--data 'food' should read NAME=PATH"),
        (("--data food=food", "--data food=nowhere"), "no folder of images at nowhere"),
        (("--data food=food", "--data food=base.safetensors"), "no folder of images at base.safetensors"),
        (("--private fc.*", ""), "'fc.weight' is [5, 96] in pretrained, [2, 96] in pets, [3, 96] in food"),
        (("--model timm:test_resnet", ""), "give either --profile NAME, a world, or --model"),
        (("--model timm:test_resnet", "--profile mini"), "--pretrained is for --model: leave it out"),
        (("--private", "--method ties --private"), "--method is for --profile: leave it out"),
        (("--private", "--set statistic=batch --private"), "has no parameter 'statistic'. Did you mean 'statistics'?"),
        (("--private", "--objective {] --private"), "is not JSON"),
        (("food=food.pt", "food=food.pt.part"), "food.pt.part"),
        (("--device cpu", "--device cpu --columns a"), "--columns is for texts"),
    ],
)
def test_what_is_refused(change, told, images, capsys):
    before = sorted(images.rglob("*"))
    assert change[0] in IMAGES
    assert run(IMAGES.replace(*change), "--steps", "1") == 2
    error = capsys.readouterr().err
    assert told in error and "Traceback" not in error
    assert sorted(images.rglob("*")) == before


def test_images_that_are_none(images, capsys):
    (images / "pets" / "class 0" / "0.png").write_bytes(b"no image")
    assert run(IMAGES, "--steps", "1") == 2
    assert "0.png is not an image that can be read" in capsys.readouterr().err
    assert not (images / "merged").exists()
