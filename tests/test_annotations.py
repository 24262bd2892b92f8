"""Types as annotations write them: what is of one, and what a text means in one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import adamerging_lib as am
from adamerging_lib.methods.registry import find, hyper_parameters
from adamerging_lib.runtime.annotations import fits, joined, read, unquoted, words, written
from adamerging_study.book import notebooks

FITTING = [
    ("int", 1), ("int | None", None), ("float", 1), ("str", ""), ("bool", False), ("list", [1, "a"]), ("list[int]", []),
    ("list[float]", [1, 0.5]), ("list[str]", ("a", "b")), ("list[list[str]]", [["a"], []]), ("dict", {1: "a"}),
    ("Mapping[str, float]", {"a": 1}), ("float | Mapping[str, float]", {"a": 0.5}), ("Sequence[int] | None", [1]),
    ("dict[str, dict[str, float]]", {"a": {}, "b": {"c": 1.0}}), ("Optional[list[int]]", None),
    ("tuple[int, str]", [1, "a"]),
    ("typing.Union[int, list[str]]", ["a"]), ("tuple[int, ...]", (1, 2)), ("Literal['a', -1]", -1),
    ("'list[str]'", ["a"]),
    ("str | Path", Path("a")), ("Tensor", object()), ("list[Tensor]", [object()]), ("NoneType", 3), ("a b", 3),
    ("Any", None),
    (int, 1), (list[str], ["a"]), (int | Mapping[str, int], {"a": 1}), (Sequence[float], [1]),
]  # fmt: skip
OTHER = [
    ("int", 1.0), ("int", True), ("float", False), ("float", "1"), ("str", 1), ("str", None), ("bool", 1),
    ("list", "a"),
    ("list", {"a": 1}), ("list[int]", [1, 0.5]), ("list[int]", [True]), ("list[float]", ["a"]), ("list[str]", [1]),
    ("list[str]", "ab"), ("Sequence[str]", "ab"), ("list[list[str]]", ["a"]), ("dict", []), ("dict", "abc"),
    ("Mapping[str, float]", {"a": "b"}), ("Mapping[str, float]", {1: 1.0}), ("Mapping[str, float] | None", "abc"),
    ("float | Mapping[str, float]", [0.5]), ("dict[str, list[int]]", {"a": [1.5]}), ("Optional[int]", "1"),
    ("tuple[int, str]", [1]), ("tuple[int, ...]", ["a"]), ("Literal[1]", True), ("list[int]", {1, 2}), (list[str], [1]),
]  # fmt: skip


@pytest.mark.parametrize(("annotation", "value"), FITTING, ids=[f"{pair[0]}-{n}" for n, pair in enumerate(FITTING)])
def test_a_value_of_the_type_fits(annotation, value):
    assert fits(annotation, value)


@pytest.mark.parametrize(("annotation", "value"), OTHER, ids=[f"{pair[0]}-{n}" for n, pair in enumerate(OTHER)])
def test_a_value_of_another_type_does_not(annotation, value):
    assert not fits(annotation, value)


@pytest.mark.parametrize(
    ("annotation", "text", "value"),
    [
        ("list[str]", "[digits,signs]", ["digits", "signs"]),
        ("list[str]", "digits, signs", ["digits", "signs"]),
        ("list[str]", '["digits", signs]', ["digits", "signs"]),
        ("list[str]", "(digits, signs)", ["digits", "signs"]),
        ("list[str]", "digits", ["digits"]),
        ("list[str]", "digits,", ["digits"]),
        ("list[str]", "[]", []),
        ("list[str]", "'1','a,b'", ["1", "a,b"]),
        ("list[str]", "New York,it is", ["New York", "it is"]),
        ("list[int]", "3", [3]),
        ("list[int] | None", "0, 1,2", [0, 1, 2]),
        ("list[float]", "-1,1e-3", [-1, 1e-3]),
        ("list[list[str]]", "[[a,b],[c]]", [["a", "b"], ["c"]]),
        ("list[list[str]]", "[a,b],[c]", [["a", "b"], ["c"]]),
        ("Mapping[str, float] | None", "{digits:2,signs:0.5}", {"digits": 2, "signs": 0.5}),
        ("Mapping[str, float] | None", "digits: 2", {"digits": 2}),
        ("float | Mapping[str, float]", "0.4", 0.4),
        ("dict", "{Entropy alone:{},Pull:{pull:0.1}}", {"Entropy alone": {}, "Pull": {"pull": 0.1}}),
        ("str | None", "ties", "ties"),
        ("str | None", "'ties'", "ties"),
        ("str | None", "12", "12"),
        ("str | Path | None", "C:/my runs (1)/it's.pt", "C:/my runs (1)/it's.pt"),
        ("bool | str", "a,b", "a,b"),
        ("int", " 7 ", 7),
    ],
)
def test_what_a_text_means(annotation, text, value):
    found = read(annotation, text)
    assert found == value and type(found) is type(value) and fits(annotation, found)


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        ("list[str]", ""), ("list[str]", "[digits,signs"), ("list[str]", "digits,signs]"), ("list[str]", "1,2"),
        ("list[str]", "a,,b"), ("list[str]", ",a"), ("list[str]", "'a' b"), ("list[str]", "'a' 'b'"),
        ("list[str]", "a:b"),
        ("list[str]", "'a,b"), ("list[str]", "{a,b}"), ("list[str]", "{a:b}"), ("list[str]", "None"),
        ("list[str]", "[a][b]"),
        ("list[float]", "a,b"), ("list[float]", "0.1 0.2"), ("list[int]", "0-4"), ("list[int]", "True,False"),
        ("list[list[str]]", "a,b"), ("dict", "abc"), ("dict", "[a]"), ("dict", "{a}"), ("dict", "{a:1,a:2}"),
        ("dict", "{[a]:1}"),
        ("Mapping[str, float]", "a:b"), ("Mapping[str, float]", "1:2"), ("float", "nan"), ("int", "1.0"),
        ("bool", "yes"),
        ("int", "1;2"), ("int", "__import__('os')"), ("list[int]", "[" * 500), ("int", "-" * 100_000 + "1"),
    ],
    ids=lambda value: str(value)[:20],
)  # fmt: skip
def test_what_means_nothing_in_a_type_does_not_fit(annotation, text):
    assert not fits(annotation, read(annotation, text))


plain = st.recursive(
    st.text() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.none() | st.booleans(),
    lambda part: st.lists(part) | st.dictionaries(st.text() | st.integers(2), part),
    max_leaves=8,
)


@given(st.lists(plain) | st.dictionaries(st.text(), plain))
def test_what_is_written_is_read_again(value):
    assert read("list | dict", written(value)) == value


@given(st.lists(st.from_regex(r"[a-z][a-zA-Z0-9_. ü/-]*[a-z]", fullmatch=True), min_size=1))
def test_a_list_of_words_needs_neither_brackets_nor_quotes(texts):
    assert read("list[str]", ",".join(texts)) == read("list[str]", f"[ {' , '.join(texts)} ]") == texts


def test_words_of_a_line_and_words_that_a_space_took_apart():
    assert words("a=1 tasks=[b, c]  name='d e'\n") == ["a=1", "tasks=[b,", "c]", "name='d e'"]
    assert joined(words("a=1 tasks=[b, c] name='d e'")) == ["a=1", "tasks=[b, c]", "name='d e'"]
    assert joined(["tasks=b,", "c", "a=1"]) == ["tasks=b, c", "a=1"]
    assert joined(["lrs=0.1,", "a=1"]) == ["lrs=0.1,", "a=1"]
    assert joined(["o={Entropy", "alone:{},", "Pull:{p:1}}", "a=1"]) == ["o={Entropy alone:{}, Pull:{p:1}}", "a=1"]
    assert joined(["text='['", "b"]) == ["text='['", "b"] and joined([]) == [] and words("") == []


def test_quotes_around_all_of_a_text_go():
    assert [unquoted(text) for text in ("'a b'", '"a"', "a")] == ["a b", "a", "a"]
    assert all(unquoted(text) == text for text in ("'a' 'b'", "'", "it's", ""))


def test_every_default_is_of_its_type():
    """Of notebooks' parameters and of methods', whatever is written beside them."""
    owners = {path: notebooks.parameters(path) for path in Path(__file__).parents[1].glob("notebooks/*.ipynb")}
    owners |= {id: hyper_parameters(find(id)) for id in am.methods().index}
    assert [(o, name) for o, known in owners.items() for name, p in known.items() if not p.allows(p.default)] == []
