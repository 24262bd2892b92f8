"""Figures of the notebooks, drawn from rows of records (or plain arrays), never from models.

One colour and one dash a method everywhere. Sizes are chosen to stay legible at the width of a telephone; the
background is opaque, so that a figure reads the same on a light and on a dark page. Every function returns the figure
and leaves showing it to the caller.
"""

from .mini_world import contact_sheet as contact_sheet
from .mini_world import cosines as cosines
from .mini_world import expert_paths as expert_paths
from .performance import accuracy_over_scaling as accuracy_over_scaling
from .performance import average_accuracies as average_accuracies
from .performance import gaps as gaps
from .performance import readme as readme
from .style import METHOD_COLOURS as METHOD_COLOURS
from .style import METHOD_DASHES as METHOD_DASHES
from .style import colour as colour
