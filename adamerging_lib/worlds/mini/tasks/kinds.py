"""How pre-training captions the pictures that a generator draws."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Kind:
    """Captions of one kind of picture.

    Arguments:
        weight: how often it comes, relative to other kinds.
        naming: captions that name what is seen, ``{}``.
        vague: captions that say only what kind of picture it is.
        other_words: what captions call a concept where that differs from the class name that the task's prompts use. A
            web-trained CLIP meets the same gap: few pages call a field "annual crop land" (EuroSAT) or a road sign by
            its legal name (GTSRB).
        sorts: of a concept, what ``{kind}`` stands for in its captions.
    """

    weight: float
    naming: tuple[str, ...]
    vague: tuple[str, ...]
    other_words: Mapping[str, str] = field(default_factory=dict)
    sorts: Mapping[str, str] = field(default_factory=dict)

    def caption(self, form: str, concept: str) -> str:
        """One of its captions, of a concept."""
        return form.format(self.other_words.get(concept, concept), kind=self.sorts.get(concept))
