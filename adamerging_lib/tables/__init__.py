"""Tables of the notebooks, made from rows of records (and the published numbers beside them), never from models."""

from ..display import Sentences as Sentences
from ..display import Table as Table
from . import budget as budget
from . import coefficients as coefficients
from . import entropy_loss as entropy_loss
from . import similarity as similarity
from . import tinting as tinting
from .common import AVERAGE as AVERAGE
from .common import BOUNDS as BOUNDS
from .common import accuracies as accuracies
from .common import averages as averages
from .common import headline as headline
from .common import interval_half_widths as interval_half_widths
from .common import label as label
from .comparison import best_scaling as best_scaling
from .comparison import gap_to_experts as gap_to_experts
from .comparison import key_numbers as key_numbers
from .comparison import performance as performance
from .comparison import published_averages as published_averages
from .comparison import published_performance as published_performance
from .comparison import ranking as ranking
from .comparison import ranking_in_words as ranking_in_words
from .comparison import sweep as sweep
from .mini_world import recipe as recipe
from .mini_world import zoo_accuracies as zoo_accuracies
