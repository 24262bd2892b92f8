"""Leaderboard: every merging method once on the same experts, beside those that need the same and give the same."""

from ..rooms import Face

FACE = Face(
    question="Which method is best among those that need the same and give the same kind of model?",
    shown=("pool", "reference", "slow"),
)
