"""The library's names, for `adamerging_lib` to hand out when the first of them is asked for."""

from .coefficients import Coefficients as Coefficients
from .coefficients import read_authors_file as read_authors_file
from .evaluation import average_confidence_interval as average_confidence_interval
from .evaluation import confidence_interval as confidence_interval
from .evaluation import evaluate as evaluate
from .evaluation import with_average as with_average
from .files.merge import merge_files as merge_files
from .methods import Fit as Fit
from .methods import Merged as Merged
from .methods import adamerge as adamerge
from .methods import merge as merge
from .methods import merge_with as merge_with
from .methods import methods as methods
from .methods import run_method as run_method
from .methods import ties_split as ties_split
from .published import published as published
from .splits import split_indices as split_indices
from .state import CheckpointError as CheckpointError
from .state import StateDict as StateDict
from .suite import Suite as Suite
from .suite import TaskData as TaskData
from .task_vectors import TaskVectors as TaskVectors
from .worlds.profiles import Profile as Profile
from .worlds.profiles import load_suite as load_suite
from .worlds.profiles import profile as profile
