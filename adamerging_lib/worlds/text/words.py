"""The words of the world of text: eight fields with people, deeds, things and places, and what words mean.

Whatever generates a sentence takes its words from here, the pre-training stream and the six tasks alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random


@dataclass(frozen=True)
class Field:
    """A field of life.

    Arguments:
        people: who acts there.
        deeds: past tense of what they do to things; regular, so that it is the participle too.
        things: what they do it to.
        places: where.
    """

    people: tuple[str, ...]
    deeds: tuple[str, ...]
    things: tuple[str, ...]
    places: tuple[str, ...]


def _field(people: str, deeds: str, things: str, places: str) -> Field:
    return Field(*(tuple(part.split()) for part in (people, deeds, things, places)))


FIELDS = {
    "sport": _field(
        "striker goalkeeper coach referee sprinter champion", "kicked defended missed celebrated tackled captained",
        "goal ball trophy match penalty medal", "stadium pitch gym arena",
    ),
    "politics": _field(
        "minister senator mayor president ambassador voter", "vetoed debated repealed ratified amended negotiated",
        "bill treaty law election tax reform", "parliament senate embassy capital",
    ),
    "science": _field(
        "physicist chemist astronomer biologist professor researcher",
        "measured observed calculated analysed computed tested",
        "molecule comet cell particle theory crystal", "laboratory observatory university institute",
    ),
    "business": _field(
        "banker investor trader accountant manager merchant", "financed purchased traded audited insured invoiced",
        "loan company profit share contract budget", "market office bank factory",
    ),
    "food": _field(
        "chef baker waiter cook butcher farmer", "cooked baked roasted tasted fried seasoned",
        "soup bread cake pie sauce salad", "kitchen restaurant bakery farm",
    ),
    "music": _field(
        "singer violinist drummer composer pianist conductor", "composed recorded rehearsed performed hummed tuned",
        "song melody album symphony guitar ballad", "opera studio theatre club",
    ),
    "travel": _field(
        "pilot tourist guide sailor driver passenger", "boarded booked packed toured reserved explored",
        "plane ticket suitcase ship island train", "airport harbour station hotel",
    ),
    "health": _field(
        "doctor nurse surgeon patient dentist pharmacist", "cured treated examined diagnosed prescribed healed",
        "wound fever disease tooth infection pill", "hospital clinic pharmacy ward",
    ),
}  # fmt: skip
FIELD_NAMES = tuple(FIELDS)

PRAISE = tuple(
    "wonderful excellent delightful superb brilliant charming lovely splendid perfect great pleasant impressive".split()
)
BLAME = tuple("awful terrible horrible dreadful poor boring disappointing nasty bad dull unpleasant hopeless".split())
PLAIN = tuple("large small new old red green long short heavy light local modern".split())
LIKED = tuple("loved enjoyed admired praised recommended adored".split())
DISLIKED = tuple("hated regretted despised criticised avoided disliked".split())
SAW = tuple("saw found noticed visited used remembered".split())
VERY = tuple("very really truly quite so extremely".split())

KINDS = {
    "animal": tuple("dog cat horse cow sheep rabbit".split()),
    "bird": tuple("eagle owl sparrow duck crow swan".split()),
    "vehicle": tuple("car truck bus tractor van lorry".split()),
    "child": tuple("boy girl pupil toddler".split()),
    "adult": tuple("man woman teacher lady gentleman".split()),
}
"""Kind → what is of that kind."""
OPPOSITES = tuple(
    tuple(pair.split("/"))
    for pair in "big/tiny clean/dirty young/aged fast/slow happy/sad quiet/noisy rich/needy strong/weak".split()
)
"""Pairs of adjectives of which only one can be true of a thing."""
ACTS = tuple(tuple(pair.split("/")) for pair in "sleep/wake stand/sit leave/stay win/lose rise/fall enter/exit".split())
"""Pairs of verbs of which only one can be true of a thing."""
SITES = {
    "outside": tuple("garden field park street yard forest".split()),
    "inside": tuple("house barn garage room school cellar".split()),
}
NUMBERS = tuple("two three four five six seven".split())

SYNONYMS = tuple(
    tuple(group.split("/"))
    for group in (
        "began/started finished/completed repaired/fixed bought/acquired built/constructed "
        "destroyed/wrecked hid/concealed moved/shifted cleaned/washed assembled/gathered showed/displayed closed/shut"
    ).split()
)
"""Pairs of verbs in the past tense that mean the same."""
PARTICIPLES = {"began": "begun", "hid": "hidden", "saw": "seen", "showed": "shown"}
OBJECTS = tuple(
    "bridge wall engine table window statue painting machine bicycle clock sofa letter toy ladder fence basket".split()
)
NEIGHBOURS = tuple("uncle aunt cousin brother sister friend neighbour student artist worker soldier carpenter".split())
ADVERBS = tuple("yesterday today recently again quickly quietly slowly carefully".split())
MONTHS = tuple("january march april may june july august october".split())
CITIES = tuple("london paris rome berlin madrid vienna oslo athens".split())


def pick(rng: Random, *choices):
    """One of the choices, or of the one sequence given."""
    return rng.choice(choices[0] if len(choices) == 1 else choices)


def other(rng: Random, choices, *but):
    """One of the choices that is none of ``but``."""
    return rng.choice([choice for choice in choices if choice not in but])


def plural(noun: str) -> str:
    """The plural of a noun of this module."""
    irregular = {"man": "men", "woman": "women", "child": "children", "sheep": "sheep", "gentleman": "gentlemen"}
    if noun in irregular:
        return irregular[noun]
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("s", "x", "ch", "sh")) else "s")


def third(verb: str) -> str:
    """The third person singular of a verb of `ACTS`."""
    return verb + "s"


def participle(past: str) -> str:
    """The participle of a verb of this module in the past tense."""
    return PARTICIPLES.get(past, past)


def a(noun: str) -> str:
    """A noun with its indefinite article."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
