"""The world of text: texts are seeded, balanced and of one split only; what the classes say is so."""

import math
import re
from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adamerging_lib.worlds.text import pretraining, words
from adamerging_lib.worlds.text.pretraining import lines
from adamerging_lib.worlds.text.tasks import SHARES, TASKS, place, render

each_task = pytest.mark.parametrize("task", TASKS)


@each_task
def test_texts_are_a_function_of_their_number(task):
    texts, labels = render(task, "test", 0, 12)
    assert render(task, "test", 5, 12) == (texts[5:], labels[5:])
    classes = len(TASKS[task].classes)
    assert labels == [number % classes for number in range(12)]


@each_task
def test_no_text_is_in_two_splits(task):
    splits = {split: set(render(task, split, 0, 400)[0]) for split in SHARES}
    for split, texts in splits.items():
        low, high = SHARES[split]
        assert all(low <= place(text) < high for text in texts)
        assert not any(texts & others for other, others in splits.items() if other != split)


def test_the_shares_of_the_splits_are_disjoint_and_all_there_is():
    ranges = sorted(SHARES.values())
    assert [low for low, _ in ranges] == [0.0] + [high for _, high in ranges[:-1]] and ranges[-1][1] == 1.0


@given(st.lists(st.text(max_size=20), min_size=1, max_size=2))
def test_every_text_has_one_place(text):
    assert sum(low <= place(tuple(text)) < high for low, high in SHARES.values()) == 1


@each_task
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), share=st.floats(0, 1))
def test_any_seed_draws_one_or_two_sentences_of_known_words(task, seed, share):
    generator, rng = TASKS[task].generator, Random(seed)
    name = generator.CLASSES[int(share * (len(generator.CLASSES) - 1))]
    text = generator.draw(name, rng)
    assert len(text) == (2 if task in ("entailment", "paraphrase") else 1)
    for sentence in text:
        assert re.fullmatch(r"[a-z]+( ([a-z]+|,))* [.?]", sentence), sentence


@each_task
def test_most_texts_occur_once(task):
    texts, _ = render(task, "train", 0, 600)
    assert len(set(texts)) > 0.95 * len(texts)


@each_task
def test_no_text_has_two_labels(task):
    labels = {}
    for split in SHARES:
        for text, label in zip(*render(task, split, 0, 300), strict=True):
            assert labels.setdefault(text, label) == label, text


def test_pre_training_holds_no_text_of_a_test():
    """Neither as a line, nor as one of its sentences, nor behind the name of a field."""
    held = set()
    for line in lines(0, 4000):
        bare = tuple(sentence.partition(" : ")[2] or sentence for sentence in line)
        held |= {line, bare, *((sentence,) for sentence in bare)}
    assert not [text for task in TASKS for text in render(task, "test", 0, 300)[0] if text in held]


@each_task
def test_what_pre_training_takes_of_a_task_is_in_no_test(task):
    drawn = [pretraining._unseen(task, Random(seed)) for seed in range(300)]
    assert all(place(text) < SHARES["test"][0] for _, text in drawn)
    assert {name for name, _ in drawn} == set(TASKS[task].classes)


def test_pre_training_lines_are_a_function_of_their_number():
    stream = lines(0, 30)
    assert lines(12, 30) == stream[12:] and lines(0, 30, seed=1) != stream


def test_a_topic_is_that_of_the_thing():
    for (sentence,), label in zip(*render("topics", "test", 0, 64), strict=True):
        things = [name for name, field in words.FIELDS.items() if set(field.things) & set(sentence.split())]
        assert things == [TASKS["topics"].classes[label]], sentence


def test_every_field_has_words_of_its_own():
    for part in ("people", "deeds", "things", "places"):
        counts = Counter(word for field in words.FIELDS.values() for word in getattr(field, part))
        assert set(counts.values()) == {1}, part


def test_a_neutral_hypothesis_says_more_than_its_premise_and_an_entailed_one_does_not():
    kinds = set(map(words.plural, words.KINDS)) | {"some"}
    for (premise, claim), label in zip(*render("entailment", "test", 0, 90), strict=True):
        new = set(claim.split()) - set(premise.split()) - kinds
        assert bool(new) == (TASKS["entailment"].classes[label] != "entailment"), (premise, claim)


def test_good_sentences_agree_in_number():
    for (sentence,), label in zip(*render("acceptability", "test", 0, 200), strict=True):
        wrong = re.search(r"\bs were\b|ies was\b|\b(has|have) (the|a|an)\b|\b(the|a) (the|a)\b", sentence)
        assert not (wrong and TASKS["acceptability"].classes[label] == "acceptable"), sentence


def test_a_share_is_what_it_says():
    texts, count = render("paraphrase", "train", 0, 200)[0], 0
    draws = [TASKS["paraphrase"].generator.draw("same", Random(seed)) for seed in range(2000)]
    for low, high in SHARES.values():
        found = sum(low <= place(text) < high for text in draws)
        assert abs(found - 2000 * (high - low)) < 5 * math.sqrt(2000 * (high - low))
        count += found
    assert count == 2000 and len(texts) == 200


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="text task 'sentimnt' is unknown"):
        render("sentimnt", "test", 0, 1)
    with pytest.raises(ValueError, match="split 'dev' is unknown"):
        render("sentiment", "dev", 0, 1)


@pytest.mark.parametrize(
    ("noun", "several"), [("city", "cities"), ("boy", "boys"), ("bus", "buses"), ("woman", "women"), ("sheep", "sheep")]
)
def test_plurals(noun, several):
    assert words.plural(noun) == several
