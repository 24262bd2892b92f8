"""Values given as text: of the type that they should have, or refused with the mend."""

import pytest

from adamerging_lib.runtime.values import Parameter, check, describe, is_number, nearest, one_of, parse

KNOWN = {
    "keep": Parameter("float", 0.2, "share"),
    "steps": Parameter("int", 5),
    "mode": Parameter("str", "sum"),
    "clamp": Parameter("bool", False),
    "tasks": Parameter("list[str]", ["a"]),
    "init": Parameter("float | None", None),
    "base": Parameter("str | None", None),
    "open": Parameter("NoneType", None),
    "weights": Parameter("Mapping[str, float] | None", None),
    "seeds": Parameter("list[int]", []),
    "table": Parameter("Coefficients | float", 0.3),
}


def test_an_unknown_name_is_refused_with_the_nearest_and_all_known():
    one_of("base", "ties", ("ties", "dare"))
    with pytest.raises(ValueError, match=r"base 'tise' is unknown: .*'ties'\? choose from ties, dare, 3$"):
        one_of("base", "tise", ("ties", "dare", 3))
    with pytest.raises(ValueError, match="base None is unknown: choose from ties$"):
        one_of("base", None, ["ties"])


def test_the_nearest_name_is_suggested_only_where_one_is_near():
    assert "'ties'" in nearest("teis", {"dare": 0, "ties": 1}) and nearest("zzz", ["dare", "ties"]) == ""


def test_numbers_are_whole_or_real_but_never_truth_values():
    assert is_number(0) and is_number(0.5)
    assert not is_number(True) and not is_number("1") and not is_number(None)


@pytest.mark.parametrize(
    ("pair", "value"),
    [
        ("keep=1e-3", 1e-3), ("keep=1", 1), ("steps=7", 7), ("mode=12", "12"), ("clamp=True", True),
        ("tasks=a,b", ["a", "b"]), ("tasks=('a', 'b')", ["a", "b"]), ("init=None", None), ("init=2", 2),
        ("base=ties", "ties"), ("base=12", "12"), ("base=None", None), ("open=[1]", [1]), ("open=x=y", "x=y"),
        ("table=0.1", 0.1), ("table=name", "name"),
    ],
)  # fmt: skip
def test_text_becomes_the_right_type(pair, value):
    (found,) = parse("it", KNOWN, [pair]).values()
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("pairs", "told"),
    [
        (
            ["kep=0.2"],
            "it has no parameter 'kep'. Did you mean 'keep'? Known parameters:\n  keep: float = 0.2  # share",
        ),
        (["keep=many"], "it: keep='many' should be of type float"),
        (["keep=True"], "keep=True should be of type float"),
        (["steps=0.5"], "steps=0.5 should be of type int"),
        (["steps=None"], "steps=None should be of type int"),
        (["clamp=1"], "clamp=1 should be of type bool"),
        (["init=much"], "init='much' should be of type float | None"),
        (["keep"], "'keep' should read name=value"),
        (["tasks=1,2"], "it: tasks=[1, 2] should be of type list[str], such as tasks=a. Known parameters:"),
        (["weights=a"], "weights='a' should be of type Mapping[str, float] | None, such as 'weights={key:1}'. Known"),
        (["seeds=a"], "seeds='a' should be of type list[int], such as seeds=1,2. Known"),
        (["init=much"], "should be of type float | None. Known"),
        (["keep=1", "keep=2"], "'keep' is given twice"),
    ],
)
def test_what_does_not_fit_is_refused(pairs, told):
    with pytest.raises(ValueError) as error:
        parse("it", KNOWN, pairs)
    assert told in str(error.value)


def test_no_parameters():
    with pytest.raises(ValueError, match="it has no parameter 'x'. It has no parameters."):
        check("it", {}, {"x": 1})
    assert describe({}) == "" and check("it", {}, {}) == {}
