"""Names as the command line changes them: what a prefix or a pattern means, and that one which fits nothing is said."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adamerging_lib.files.names import dropped, strip

NAMES = ["model.a.weight", "model.a.bias", "model.position_ids", "scale"]


@pytest.mark.parametrize("prefix", ["model", "model."])
def test_a_prefix_goes_with_or_without_its_dot(prefix):
    assert strip(NAMES, prefix) == {
        "a.weight": "model.a.weight", "a.bias": "model.a.bias", "position_ids": "model.position_ids", "scale": "scale"
    }  # fmt: skip


def test_a_prefix_without_a_dot_after_it_is_taken_as_it_is():
    assert strip(["net_a", "net_b"], "net_") == {"a": "net_a", "b": "net_b"}


@pytest.mark.parametrize(
    ("names", "prefix", "message"),
    [
        (NAMES, "module", "no tensor's name begins with 'module'; there are model.a.weight"),
        (NAMES, "", "no tensor's name begins with ''"),
        (["model.scale", "scale"], "model", "'scale' and 'model.scale' would both be 'scale'"),
        (["model.", "model.a"], "model", "nothing is left of the name 'model.'"),
    ],
)
def test_prefixes_that_cannot_go(names, prefix, message):
    with pytest.raises(ValueError, match=message):
        strip(names, prefix)


@given(st.lists(st.text("ab.", min_size=1), min_size=1, unique=True), st.text("ab.", min_size=1, max_size=3))
def test_stripping_loses_nothing(names, prefix):
    try:
        found = strip(names, prefix)
    except ValueError:
        return
    assert list(found.values()) == names and all(old.endswith(new) for new, old in found.items())


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["*.position_ids"], {"model.position_ids"}),
        (["scale", "model.a.*"], {"scale", "model.a.weight", "model.a.bias"}),
        (["*"], set(NAMES)),
        ([], set()),
    ],
)
def test_patterns(patterns, expected):
    assert dropped(NAMES, patterns) == expected


def test_a_name_with_brackets_can_be_written_out():
    assert dropped(["layers[0].w", "layers0.w"], ["layers[0].w"]) == {"layers[0].w", "layers0.w"}


def test_a_pattern_that_fits_nothing_is_named():
    with pytest.raises(ValueError, match=r"fits 'position_ids': did you mean 'model.position_ids'\? .*\*\.posi"):
        dropped(NAMES, ["*.bias", "position_ids"])


@given(st.lists(st.text("ab.*", min_size=1), min_size=1), st.text("ab.*?", min_size=1))
def test_patterns_mean_what_the_shell_means(names, pattern):
    expected = {name for name in names if fnmatchcase(name, pattern)}
    if expected:
        assert dropped(names, [pattern]) == expected
