"""Published checkpoints: every format, read without executing anything, as open_clip's vision tower."""

from .conversion import KINDS as KINDS
from .conversion import Conversion as Conversion
from .conversion import convert as convert
from .huggingface import from_hf as from_hf
from .models import load_clip_model as load_clip_model
from .reading import load_encoder as load_encoder
from .reading import load_head as load_head
