"""Task vectors in pairs: how similar they are, and whether that tells which two tasks merge cheaply."""

from ..rooms import Face

FACE = Face(
    question="Does the similarity of two task vectors tell what merging the two costs?",
    factors={
        "kind": "what was measured. Of two task vectors: `cosine`, `sign_conflict` or `overlap`. Of images of `task`: "
        "`zero_shot`; `transfer`, under the expert of `other`; `alone` and `pair`, under θ0 + λ T_task without and "
        "with λ T_other",
        "other": "the second task of a pair",
    },
    measured={"value": "of two task vectors: their cosine, or percent"},
)
