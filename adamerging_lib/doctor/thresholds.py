"""Where `check` draws its lines. Each was written down, with its reason, before it was tried on an injected fault.

What honest experts look like, from the records of `mini_suite`: eight experts of the drawn world and eight of
photographs (three recipes each). ‖T_k‖ / ‖θ0‖ is 0.05 to 0.07 and 0.008 to 0.05; of one matrix at most 0.15; cosines of
two task vectors are −0.003 to 0.14, 0.03 to 0.07 on average. A task vector's effective rank is 0.14 to 0.22 of what
noise of the same shape has.
"""

FAR = 2.7
"""‖T_k‖ against the median of the others, above which an expert is *far*.

The most uneven honest expert known, Cars on photographs, is 2.5 times as far as the median of the other seven (it was
trained for 2,000 steps, the others for 800); a task vector stretched by three should be seen. Between 2.5 and 3 there
is little room: of eight experts of the drawn world, stretched by three, the shortest comes to 2.4 and will be missed.
Of two experts the other one is the median: then *uneven* is said of both, for nobody can say which is wrong.
"""

SHORT = 0.5
"""‖T_k‖ against the median of the others, below which an expert of three or more is *short*.

Honest experts come to 0.82 (the drawn world, all eight) and 0.73 (its worst three). An expert that went half of its way
lands at 0.4 to 0.6, so half of those will be missed; a line at 0.6 would accuse photographs' EuroSAT beside Cars.
Of two experts only FAR is asked, for the reason given there.
"""

STILL = 0.1
"""‖T_k‖ against the median of the others, below which an expert has *hardly moved*.

Five times shorter than the shortest honest one, and what is left by weights that were only rounded to bfloat16: 0.0017
of ‖θ0‖ against 0.02 or more.
"""

NOISE = 0.7
"""Effective rank against that of noise of the same shape, above which a difference is *noise*, not training.

Training moves few directions (0.14 to 0.22), rounding moves all of them (1). Long training in bfloat16 raises the
number too, so this counts only where the distance also is that of rounding, below ROUNDING.
"""

ROUNDING = 2.0**-8
"""‖T_k‖ / ‖θ0‖ up to which a difference can be rounding: one step of bfloat16, the coarsest format of whole weights.

Rounding random weights to bfloat16 moves them by 0.0017 of their length. The shortest honest expert, of photographs and
trained for a fraction of the steps, comes to 0.0076, twice the line.
"""

DISTANT = 1.0
"""‖T_k‖ / ‖θ0‖ above which an expert is *distant*, whatever the others do: further from θ0 than zero is."""

STRANGE = 0.5
"""cos(θ_k, θ0) of a matrix below which it is *another matrix*, not a trained one.

A matrix that moved by half its own length has 0.87, the largest honest move (0.15) 0.99. Matrices of another
initialisation, or with their rows in another order, have about 0. At 0.5 the change is as long as the matrix.
"""

FOREIGN = 0.25
"""Share of the entries of all matrices that lie in strange ones, from which an expert is *foreign*: of another base.

A new head, or an embedding that was made anew, is some percent of a model. The hidden units of all MLPs in another
order are two thirds of a transformer's matrices, its attention heads in another order one third.
"""

COPY = 0.9
"""Cosine of two task vectors from which two experts are *nearly the same*.

The most similar honest pair has 0.14. Two checkpoints of one run, or a copy with noise of half its length, have 0.9.
"""

OPPOSED = -0.3
"""Cosine of two task vectors below which two experts *undo each other*; honest ones are at right angles, or nearer."""

SHARED = 0.35
"""Mean cosine of the task vectors from which they *share a way*, as when `pretrained` is not where they began.

Where θ0 and an expert were exchanged, all differences hold the same −T_j: for task vectors of equal length at right
angles their cosines are 1/2 (pairs with θ0 itself: 0.71). Honest sets have up to 0.07, 0.14 for the nearest pair.
"""

BETTER = 0.5
"""An expert looks like the base where the others' mean cosine, seen from it, is below this share of `pretrained`'s.

Seen from θ0, experts are at right angles (0.03); seen from one of them, at 60° (0.5). Experts that only share a way
stay at 60° or less from wherever one looks.
"""

CONFLICT = 0.5
"""Share of an expert's entries moved against the sum of all, above which it is *outvoted*: like tossing a coin.

K task vectors at right angles have arccos(1/√K)/π: 0.25 for two, 0.38 for eight, always below one half.
"""

COARSE = 16
"""Different numbers among 64 neighbours of a matrix, up to which weights are *coarse*: widened from 4 bits.

Trained weights have nearly 64 in any format, of bfloat16 too; 4 bits with a scale per row or per block of 64 have 16.
The only line that was drawn after a fault had been missed, by all rules above.
"""
