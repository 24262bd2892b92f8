"""Verdicts over rows of records: what a statement asks, what was measured, and *holds* or *does not hold*."""

from .budget import budget as budget
from .coefficients import coefficients as coefficients
from .common import FAILS as FAILS
from .common import HOLDS as HOLDS
from .common import NOT_RUN as NOT_RUN
from .common import Verdict as Verdict
from .common import to_frame as to_frame
from .comparison import mini_gate as mini_gate
from .comparison import paper_order as paper_order
from .comparison import performance as performance
from .entropy_loss import entropy_loss as entropy_loss
from .generalisation import generalisation as generalisation
from .leaderboard import leaderboard as leaderboard
from .mini_world import experts as experts
from .reasons import reasons as reasons
from .robustness import robustness as robustness
from .similarity import similarity as similarity
from .tinting import tinting as tinting
