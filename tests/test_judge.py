"""Claims are read strictly, and judged by the whole interval."""

import dataclasses
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from adamerging_study import judge as judging
from adamerging_study.judge import FAILS, HOLDS, NOT_RUN, UNDECIDED, Claim, judge

CLAIM = Claim("gain", "It gains", "study", "", "gain", 0.0, math.inf)
TEXT = "- {id: gain, claim: It gains, by: paper, where: Table 1, published: '+11.0', value: gain, at_least: 5.5}\n"


def spread(low, high, point=None):
    """A number whose 95 % interval is from low to high."""
    ends = np.repeat([low, high], [50, 50])
    return {"gain": np.concatenate([[(low + high) / 2 if point is None else point], ends])}


def claims_of(tmp_path, text):
    path = tmp_path / "claims.yml"
    path.write_text(text, encoding="utf-8")
    return judging.read(path)


@pytest.mark.parametrize(
    ("low", "high", "at_least", "at_most", "word"),
    [
        (1, 2, 0, math.inf, HOLDS),
        (-1, 2, 0, math.inf, UNDECIDED),
        (-2, -1, 0, math.inf, FAILS),
        (0, 0, 0, math.inf, UNDECIDED),
        (0, 2, 0, math.inf, UNDECIDED),
        (-2, 0, 0, math.inf, UNDECIDED),
        (1, 2, -math.inf, 3, HOLDS),
        (1, 4, -math.inf, 3, UNDECIDED),
        (4, 5, -math.inf, 3, FAILS),
        (1, 2, 0, 3, HOLDS),
        (-1, 2, 0, 3, UNDECIDED),
        (1, 4, 0, 3, UNDECIDED),
        (-1, 4, 0, 3, UNDECIDED),
        (-2, -1, 0, 3, FAILS),
        (4, 5, 0, 3, FAILS),
    ],
)
def test_the_word_is_read_off_the_whole_interval(low, high, at_least, at_most, word):
    verdict = judge(dataclasses.replace(CLAIM, low=at_least, high=at_most), spread(low, high))
    assert (verdict.word, str(verdict), verdict.interval) == (word, word, (low, high))
    assert not verdict.point_only


def test_last_bits_do_not_decide():
    assert judge(CLAIM, spread(1e-13, 1e-13)).word == UNDECIDED
    assert judge(CLAIM, {"gain": np.array([1e-13, math.nan])}).word == FAILS  # a tie is not above


@pytest.mark.parametrize(("point", "word"), [(1.0, HOLDS), (0.0, FAILS), (-1.0, FAILS)])
def test_without_outcomes_the_point_value_decides_and_says_so(point, word):
    numbers = {"gain": np.array([point, math.nan, math.nan])}
    verdict = judge(CLAIM, numbers)
    assert verdict.word == word and verdict.interval is None
    assert verdict.point_only and str(verdict) == f"{word} (point value only)"
    exact = judge(dataclasses.replace(CLAIM, exact=True), numbers)
    assert (str(exact), exact.point_only) == (HOLDS if point >= 0 else FAILS, False)  # nothing random: a tie is inside


def test_what_was_not_measured_is_not_run():
    for exact in (False, True):
        verdict = judge(dataclasses.replace(CLAIM, exact=exact), {"gain": np.full(9, math.nan)})
        assert (verdict.word, str(verdict), verdict.interval) == (NOT_RUN, NOT_RUN, None)
        assert math.isnan(verdict.point)


def test_numbers_that_contradict_the_claim_are_refused():
    with pytest.raises(ValueError, match="gain"):
        judge(CLAIM, {"loss": np.zeros(3)})
    with pytest.raises(ValueError, match="exact"):
        judge(dataclasses.replace(CLAIM, exact=True), spread(1, 2))


def test_words_are_counted_and_point_values_apart():
    numbers = [spread(1, 2), spread(1, 3), spread(-1, 1), spread(-2, -1)]
    numbers += [{"gain": np.array(values)} for values in ([1.0, math.nan], [-1.0, math.nan], [math.nan, math.nan])]
    counted = judging.count(judge(CLAIM, number) for number in numbers)
    assert counted == {
        HOLDS: 2, FAILS: 1, UNDECIDED: 1, NOT_RUN: 1,
        "holds (point value only)": 1, "does not hold (point value only)": 1,
    }  # fmt: skip
    assert set(judging.count([]).values()) == {0}


def test_the_table_shows_measured_interval_and_range():
    numbers = [spread(1, 2), spread(-0.25, 1), {"gain": np.array([math.nan])}, {"gain": np.array([12.0])}]
    frame = judging.to_frame(judge(CLAIM, number) for number in numbers)
    assert list(frame.columns) == ["claim", "by", "measured", "95 % interval", "required", "verdict"]
    assert frame.drop(columns=["claim", "by", "required"]).to_numpy().tolist() == [
        ["1.5", "1.0 to 2.0", "holds"],
        ["0.38", "-0.25 to 1.00", "undecided"],
        ["–", "–", "not run"],
        ["12.0", "–", "holds (point value only)"],
    ]
    assert set(frame["required"]) == {"≥ 0"}
    assert len(judging.to_frame([])) == 0


@pytest.mark.parametrize(("low", "high", "words"), [(1, math.inf, "≥ 1"), (-math.inf, 0.5, "≤ 0.5"), (0, 1, "0 to 1")])
def test_the_range_in_words(low, high, words):
    assert dataclasses.replace(CLAIM, low=low, high=high).required == words


def test_claims_are_read_with_their_defaults(tmp_path):
    more = "- {id: size, claim: Small, by: study, value: bytes, at_most: 3, unit: MB, exact: true, why: {mini: Big}}"
    first, second = claims_of(tmp_path, TEXT + more)
    assert first == Claim("gain", "It gains", "paper", "Table 1", "gain", 5.5, math.inf, published="+11.0")
    assert second == Claim("size", "Small", "study", "", "bytes", -math.inf, 3, "", "MB", True, (), {"mini": "Big"})
    assert claims_of(tmp_path, "") == []


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("value: gain", "value: gain, page: x", "page"),
        ("by: paper", "by: nobody", "nobody"),
        (", by: paper", "", "by"),
        (", value: gain", "", "value"),
        ("value: gain", "value: gain - loss", "gain - loss"),
        ("value: gain", "value: 3", "3"),
        (", where: Table 1", "", "where"),
        (", at_least: 5.5", "", "at_least"),
        ("5.5", "much", "much"),
        ("5.5", ".nan", "nan"),
        ("5.5", "true", "True"),
        ("at_least: 5.5", "at_least: 5.5, at_most: 5", "5.5"),
        ("at_least: 5.5", "at_least: 5.5, exact: 1", "exact"),
        ("at_least: 5.5", "at_least: 5.5, why: because", "why"),
        ("claim: It gains", "claim: ''", "claim"),
        ("'+11.0'", "+11.0", "published"),
    ],
)
def test_a_claim_that_says_too_much_or_too_little_is_refused(tmp_path, old, new, named):
    assert old in TEXT
    with pytest.raises(ValueError) as refused:
        claims_of(tmp_path, TEXT.replace(old, new))
    words = str(refused.value)
    assert named in words and "claims.yml" in words and "'gain'" in words


@pytest.mark.parametrize(("text", "named"), [(TEXT + TEXT, "'gain'"), ("- word", "word"), ("id: gain", "dict")])
def test_a_file_that_is_no_list_of_different_claims_is_refused(tmp_path, text, named):
    with pytest.raises(ValueError, match=named):
        claims_of(tmp_path, text)


def test_judging_needs_neither_torch_nor_the_library():
    """Figures and the claims page are drawn where no model can be loaded."""
    code = "import sys, adamerging_study.judge; print({'torch', 'adamerging_lib'} & sys.modules.keys())"
    root = Path(__file__).resolve().parents[1]
    ended = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert (ended.stdout, ended.stderr) == ("set()\n", "")
