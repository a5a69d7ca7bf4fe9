"""``python -m gpt4image``."""

import sys

from gpt4image.cli import main

sys.exit(main())
