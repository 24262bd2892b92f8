"""``python -m adamerging_lib`` is the command ``adamerging``; it is what torchrun can start."""

import sys

from .cli import main

sys.exit(main())
