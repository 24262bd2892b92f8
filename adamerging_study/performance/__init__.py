"""Main comparison: ten methods on one set of experts, and one λ for all tasks varied where somebody must choose it."""

from ..rooms import Face

FACE = Face(
    question="Which method comes out best, by how much, and in the order that the paper reports?",
    factors={"scaling": "λ of a point of the sweep; the methods' own rows, at their defaults, lack it"},
    shown=("reference",),
)
