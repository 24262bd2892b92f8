"""`am.adapt` with transformers' own classes: dicts of tokens, adapters, tied heads, places that are masked."""

from __future__ import annotations

import adapted
import pytest
import torch
from strategies import assert_close
from transformers import BatchEncoding

import adamerging_lib as am
from adamerging_lib.adapting.adapt import adapt
from adamerging_lib.adapting.parts import take_apart
from adamerging_lib.state import load, save

SHORT = {"steps": 3, "lr": 0.05, "progress": False}


def tokens(seed: int, count: int = 4, size: int = 5) -> list[BatchEncoding]:
    """Padded batches of texts of different length, with labels that nobody may read."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for number in range(count):
        ids = torch.randint(2, 11, (size, 5 + number % 3), generator=generator)
        mask = (torch.arange(ids.shape[1]) < torch.randint(2, ids.shape[1] + 1, (size, 1), generator=generator)).long()
        found.append(
            BatchEncoding({"input_ids": ids * mask, "attention_mask": mask, "labels": torch.full((size,), 99)})
        )
    return found


def moved(state, seed: int, scale: float = 0.1):
    generator = torch.Generator().manual_seed(seed)
    return {
        k: t + scale * torch.randn(t.shape, generator=generator) if t.is_floating_point() else t
        for k, t in state.items()
    }


def test_sequence_classifiers_with_heads_of_their_own(tmp_path):
    base = adapted.made("bert").state_dict()
    experts = {"one": moved(base, 1), "two": moved(base, 2)}
    experts["two"] |= {"classifier.weight": torch.randn(4, 8), "classifier.bias": torch.zeros(4)}
    data = {"one": tokens(1), "two": tokens(2)}
    fit = adapt(adapted.made("bert"), base, experts, data=data, private="classifier.*", **SHORT)
    assert not [row for row in fit.coefficients.rows if row.startswith("classifier")]
    model = fit.model("two")
    assert model(**{k: v for k, v in tokens(3)[0].items() if k != "labels"}).logits.shape == (5, 4)
    labelled = {t: [dict(b, labels=torch.zeros(5).long()) for b in own] for t, own in data.items()}
    again = am.load_adapted(fit.save(tmp_path / "merged"), adapted.made("bert", 5))
    assert am.evaluate(again, labelled).equals(am.evaluate(fit, labelled))
    assert am.evaluate(fit, labelled)["n"].tolist() == [20, 20]


def test_adapters_as_experts(tmp_path):
    """θ0 + s·BA of peft, its saved classifier private; the same as with what peft merges."""
    places = {}
    for seed, task in enumerate(("one", "two")):
        folder = tmp_path / task
        folder.mkdir()
        places[task] = adapted.adapt(adapted.made("bert"), folder, seed, task_type="SEQ_CLS", target_modules=["query"])
    base = places["one"].base
    parts = take_apart(adapted.made("bert"), base, {t: p.folder for t, p in places.items()}, "classifier.*")
    for k, (task, place) in enumerate(places.items()):
        for key, t in parts.tv.vectors.items():
            torch.testing.assert_close(t[k], place.merged[key] - load(base)[key], rtol=1e-5, atol=1e-6)
        assert_close(parts.private[task], {key: place.merged[key] for key in parts.private[task]})
    assert set(parts.private["one"]) == {"classifier.weight", "classifier.bias"}
    options = {"data": {"one": tokens(1), "two": tokens(2)}, "private": "classifier.*", **SHORT}
    fit = adapt(adapted.made("bert"), base, {t: p.folder for t, p in places.items()}, **options)
    whole = adapt(adapted.made("bert"), base, {t: p.merged for t, p in places.items()}, **options)
    # What no adapter changes has no coefficients; in the other fit they stay where they began.
    assert fit.coefficients.rows == tuple(f"bert.encoder.layer.{i}.attention.self.query.weight" for i in range(2))
    rows = [whole.coefficients.rows.index(row) for row in fit.coefficients.rows]
    torch.testing.assert_close(fit.trajectory, whole.trajectory[..., rows], rtol=1e-3, atol=1e-4)
    with pytest.raises(ValueError, match="is an adapter, not a model: give the base"):
        adapt(adapted.made("bert"), places["one"].folder, dict.fromkeys(places, base), **options)


def test_one_prediction_per_place_without_those_that_are_masked(tmp_path):
    """A causal model, its head tied to the embedding: logits [n, places, vocabulary]."""
    model = adapted.made("llama")
    model.config.tie_word_embeddings = True
    model.tie_weights()
    base = adapted.stored(model)
    save(tmp_path / "base.safetensors", base)
    assert "lm_head.weight" not in base
    experts = {"one": moved(base, 1), "two": moved(base, 2)}
    data = {"one": tokens(1), "two": tokens(2)}
    fit = adapt(model, tmp_path / "base.safetensors", experts, data=data, **SHORT)
    assert fit.ties == {"lm_head.weight": "model.embed_tokens.weight"} and fit.overrides is None
    assert "lm_head.weight" in fit.state_dict("one")
    blind = {}
    for task, own in data.items():
        blind[task] = [dict(b, input_ids=torch.where(b["attention_mask"] == 1, b["input_ids"], 7)) for b in own]
    # What stands at masked places behind the text changes nothing of a causal model's other predictions.
    other = adapt(model, base, experts, data=blind, **SHORT)
    torch.testing.assert_close(other.trajectory, fit.trajectory)


def test_images_of_transformers_models():
    base = adapted.made("vit").state_dict()
    experts = {"one": moved(base, 1), "two": moved(base, 2)}
    generator = torch.Generator().manual_seed(0)
    data = {t: [{"pixel_values": torch.randn(4, 3, 8, 8, generator=generator)} for _ in range(3)] for t in experts}
    fit = adapt(adapted.made("vit"), base, experts, data=data, private="classifier.*", granularity="block", **SHORT)
    assert fit.coefficients.rows[0] == "embeddings" and (fit.trajectory[-1] - 0.3).abs().max() > 0.05
