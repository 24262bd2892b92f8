"""Generalisation: the experts of some tasks are merged, and the model is tested on the other tasks too."""

from ..rooms import Face

FACE = Face(
    question="Does a merged model know something that none of its experts was trained for?",
    factors={"unseen": "the tasks whose experts took no part, joined by commas; every row names its split"},
    shown=("reference",),
    tolerance={"accuracy": 2.0},
)
