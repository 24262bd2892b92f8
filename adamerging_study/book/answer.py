"""The answer of the first page: sentences on both worlds whose words follow from the intervals of the records."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import reduce
from pathlib import Path

import numpy as np

from adamerging_lib import records
from adamerging_lib.published import published

from .. import claims
from ..judge import FAILS, HOLDS, NOT_RUN, POINT_ONLY, UNDECIDED, WORDS
from ..performance.numbers import LEARNED
from ..sample import AVERAGE, interval
from .roles import about, covered, digits, marked, origin
from .worlds import TITLES

WORLDS = {name: TITLES[name] for name in ("mini", "tiny")}
"""Profile → what pages call it, of the worlds of images, which stand beside the paper's."""
TEXT = "mini-text"
"""The profile of the world of text, which stands beside them where it has a record."""
LEADERS = {"tsv_m": "TSV-M", "wudi": "closed-form WUDI"}
"""Methods that need no image, set beside AdaMerging on the first page → what it calls them."""
SWEPT = {"ta": "Task Arithmetic", "ties": "Ties-Merging"}
"""Fixed methods that are swept over λ, as the names of numbers call them → their names."""

_PLACES = {"mini": "in the drawn world", "tiny": "on photographs", TEXT: "on text"}
_VERBS = {HOLDS: "reproduces", FAILS: "does not reproduce", UNDECIDED: "is undecided", NOT_RUN: "was not measured"}
_FURTHER = {FAILS: "but not", UNDECIDED: "and is undecided", NOT_RUN: "and was not measured"}  # after another verb
_COUNTED = {HOLDS: "gain", FAILS: "lose", UNDECIDED: "undecided", NOT_RUN: "not run"}
_LEAD, _GAIN = "lw_over_ta", "lw_gain_on_"
_DIGITS = 9  # as the judge has it: numbers that are equal on paper differ in their last bits


def answer_text() -> str:
    """Whether the gain of layer-wise AdaMerging over Task Arithmetic reproduces, in sign and in size, and how sure."""
    gains = {profile: numbers[_LEAD] for profile, numbers in numbers_of("performance", (*WORLDS, TEXT)).items()}
    found = listed(
        f"{told(values, covered(record_of('performance', profile)), _about('performance', profile, _LEAD, values))} "
        f"{_PLACES[profile]}"
        for profile, values in gains.items()
    )
    return (
        f"**{verdict_text()}** Layer-wise AdaMerging over Task Arithmetic at $\\lambda = 0.3$, in average accuracy: "
        f"{found}.\n"
    )


def verdict_text() -> str:
    """The answer in one sentence: where the sign of the gain reproduces, and where as much of its size as we ask."""
    claim = next(claim for claim in claims.claims_of("performance") if claim.id == "lw-over-ta")
    measured = numbers_of("performance", (*WORLDS, TEXT))
    sizes = {profile: claims.verdict("performance", claim.id, profile).word for profile in measured}
    signs = {profile: direction(numbers["lw_over_ta"]) for profile, numbers in measured.items()}
    size = f"its size (we ask for {claim.low:g} of the published {quoted(claim.published)} points)"
    return f"The sign of AdaMerging's gain {spoken(signs)}; {size} {spoken(sizes)}."


def findings_text() -> str:
    """A list: what remains over the best λ, how many tasks gain and lose, and what methods without images reach."""
    return "".join(f"* {text}\n" for text in (best_text(), tasks_text(), standing_text()))


def best_text() -> str:
    """What layer-wise AdaMerging leads by over the two fixed methods at the best λ of a sweep, in each world."""
    parts = []
    for profile, numbers in numbers_of("performance", (*WORLDS, TEXT)).items():
        each = " and ".join(
            f"over {name}{_at(profile, numbers, short)} {_best(profile, numbers, short)}"
            for short, name in SWEPT.items()
        )
        parts.append(f"  * {_PLACES[profile]}, {each}")
    return (
        "**Against fixed methods at the best λ of a sweep**, which takes labels to find, the lead of layer-wise "
        "AdaMerging is, in points (95 % interval; seeds as in the figure):\n" + "\n".join(parts)
    )


def tasks_text() -> str:
    """How many tasks gain and how many lose by layer-wise AdaMerging, in each world and in the paper's Table 1."""
    parts = []
    for profile, numbers in numbers_of("performance").items():
        where = origin(record_of("performance", profile), f"{_GAIN}…")
        parts.append(f"{_PLACES[profile]}, {marked(counted(task_gains(numbers).values()), where)}")
    theirs = np.sign(list(published_gains("layer_wise_adamerging").values()))
    paper = f"{(theirs > 0).sum()} gain, {(theirs < 0).sum()} lose"
    return (
        f"**Task by task**, layer-wise over Task Arithmetic at $\\lambda = 0.3$: {'; '.join(parts)}; published, "
        f"{quoted(paper)} (no intervals printed)."
    )


def standing_text() -> str:
    """Whether methods that need no image stand above every form of AdaMerging, in the leaderboard of each world."""
    leads = {
        profile: {leader: lead(numbers, leader) for leader in LEADERS}
        for profile, numbers in numbers_of("leaderboard").items()
    }
    above = all(direction(values) == HOLDS for found in leads.values() for values in found.values())
    verb = "stand" if above else "are *not* shown to stand"
    parts = []
    for profile, found in leads.items():
        each = " and ".join(f"{LEADERS[leader]} {_lead(profile, leader, values)}" for leader, values in found.items())
        parts.append(f"{_PLACES[profile]}, {each}")
    return (
        f"**Without any image**, {' and '.join(LEADERS.values())} {verb} above all four published forms of AdaMerging"
        f"{_steps()} in both worlds of images. Their lead over the best form, points "
        f"(95 % interval{_covered()}): {'; '.join(parts)}."
    )


# ----------------------------------------------------------------------------------------- numbers, and words for them


def record_of(room: str, profile: str) -> Path:
    """The record of an experiment in a world.

    Raises:
        ValueError: there is none.
    """
    if path := claims.record_of(room, profile):
        return path
    raise ValueError(f"the first page needs a record of {room} on {profile}: run that notebook on it")


def numbers_of(room: str, profiles: Iterable[str] = tuple(WORLDS)) -> dict[str, dict[str, np.ndarray]]:
    """Profile → the numbers of an experiment there; a world other than the `WORLDS` only where it has a record."""
    wanted = [profile for profile in profiles if profile in WORLDS or claims.record_of(room, profile)]
    return {profile: claims.numbers_at(record_of(room, profile)) for profile in wanted}


def published_gains(method: str) -> dict[str, float]:
    """Task → what a method gains over Task Arithmetic in the paper's Table 1, points; without the average."""
    at = published(table=1).set_index(["method_id", "task"])["accuracy"]
    return (at[method] - at["task_arithmetic"]).drop(AVERAGE).round(_DIGITS).to_dict()


def task_gains(numbers: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Task → what layer-wise AdaMerging gains over Task Arithmetic there, among the numbers of the main comparison."""
    return {name.removeprefix(_GAIN): values for name, values in numbers.items() if name.startswith(_GAIN)}


def best_gain(numbers: Mapping[str, np.ndarray], short: str) -> np.ndarray:
    """What layer-wise AdaMerging gains over a fixed method at the best λ of its sweep, points, draw by draw."""
    return numbers["lw_average"] - numbers[f"{short}_best"]


def direction(values: np.ndarray) -> str:
    """*holds* for a number whose 95 % interval lies above 0, *does not hold* below 0, *undecided*, or *not run*.

    Arguments:
        values: ``[1 + draws]``, see `Sample`; without an interval the point value decides, and 0 is undecided.
    """
    point, low, high = interval(values)
    if math.isnan(point):
        return NOT_RUN
    low, high = (round(end, _DIGITS) for end in ((point, point) if low is None or high is None else (low, high)))
    return HOLDS if low > 0 else FAILS if high < 0 else UNDECIDED


def direction_text(values: np.ndarray) -> str:
    """What became of a gain's sign, as a verb: "reproduces", "is undecided"."""
    return _VERBS[direction(values)]


def told(values: np.ndarray, over: str = "", where: str = "") -> str:
    """A difference with its uncertainty: "+6.3 points (95 % interval 5.6 to 7.1)".

    Arguments:
        values: ``[1 + draws]``, see `Sample`.
        over: what the interval is over, see `roles.covered`.
        where: what its box tells, see `roles.about`; a number without a box by default.
    """
    point, low, high = interval(values)
    if math.isnan(point):
        return NOT_RUN
    form = f".{digits(point)}f"
    sure = POINT_ONLY if low is None or high is None else f"95 % interval {low:{form}} to {high:{form}} {over}".rstrip()
    return f"{marked(_signed(point, form), where)} points ({sure.replace('-', '−')})"


def brief(values: np.ndarray, where: str = "") -> str:
    """A difference with its interval, for lists: "+6.3 (5.6 to 7.1)"; ``where`` as in `told`."""
    point, low, high = interval(values)
    if math.isnan(point):
        return NOT_RUN
    sure = POINT_ONLY if low is None or high is None else f"{low:.1f} to {high:.1f}"
    return f"{marked(_signed(point), where)} ({sure.replace('-', '−')})"


def spoken(words: Mapping[str, str]) -> str:
    """A word per world as a phrase: "reproduces in the drawn world but not on photographs"."""
    parts = []
    for word in (word for word in WORDS if word in words.values()):
        said = [profile for profile, of in words.items() if of == word]
        both = WORLDS.keys() <= set(said)
        single = [name for name in said if not both or name not in WORLDS]
        places = ["in both worlds of images"] * both + [_PLACES[name] for name in single]
        verb = _FURTHER[word] if parts and HOLDS in words.values() else _VERBS[word]
        parts.append(f"{verb} {listed(places)}")
    return (" " if HOLDS in words.values() else " and ").join(parts)


def listed(parts: Iterable[str]) -> str:
    """Parts of a sentence: "one", "one and two", "one, two and three"."""
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last


def counted(gains: Iterable[np.ndarray]) -> str:
    """How many of some differences are gains, losses and undecided: "4 gain, 3 lose, 1 undecided"."""
    gains = list(gains)
    found, always = Counter(map(direction, gains)), (HOLDS, FAILS)
    text = ", ".join(f"{found[word]} {name}" for word, name in _COUNTED.items() if found[word] or word in always)
    alone = gains and all(interval(values)[1] is None for values in gains)
    return f"{text} ({POINT_ONLY})" if alone else text


def lead(numbers: Mapping[str, np.ndarray], leader: str) -> np.ndarray:
    """What a method is above the best of the four forms of AdaMerging, points; NaN where one of them was not run."""
    over = [numbers.get(f"{leader}_over_{form}", np.array([math.nan])) for form in LEARNED]
    return reduce(np.minimum, over)


def _with_word(values: np.ndarray, where: str) -> str:
    """As `brief`; where the lead is not sure, that too."""
    return brief(values, where) + {UNDECIDED: ", undecided", FAILS: ", below"}.get(direction(values), "")


def _best(profile: str, numbers: Mapping[str, np.ndarray], short: str) -> str:
    values = best_gain(numbers, short)
    return _with_word(values, _about("performance", profile, f"lw_average less {short}_best", values))


def _lead(profile: str, leader: str, values: np.ndarray) -> str:
    return _with_word(values, _about("leaderboard", profile, f"the least {leader}_over_…", values))


def _about(room: str, profile: str, name: str, values: np.ndarray) -> str:
    """What the box of a difference tells, see `roles.about`."""
    return about(record_of(room, profile), name, values, _signed)


def _signed(value: float, form: str = ".1f") -> str:
    return f"{value:+{form}}".replace("-", "−")


def _at(profile: str, numbers: Mapping[str, np.ndarray], short: str) -> str:
    """The best λ of a sweep, in brackets; nothing where there was none."""
    name = f"best_scaling_{short}"
    best, where = numbers[name][0], origin(record_of("performance", profile), name)
    return "" if math.isnan(best) else f" ({marked(f'λ = {best:g}', where)})"


def _covered() -> str:
    """What the intervals of the leaderboards are over, where they have any."""
    found = dict.fromkeys(covered(record_of("leaderboard", profile)) for profile in WORLDS)
    return "".join(f" {over}" for over in found if over)


def _steps() -> str:
    """How long AdaMerging learned in the leaderboards, as far as their records tell."""
    found = [records.read(record_of("leaderboard", profile))["parameters"].get("steps") for profile in WORLDS]
    return f" ({' and '.join(map(str, dict.fromkeys(found)))} steps)" if all(found) else ""


def quoted(text: str) -> str:
    """A number of the paper, in the look of all published numbers."""
    return f"[{text}]{{.published}}"
