"""``python -m gpt4image``, and what the command ``gpt4image`` starts."""

import sys


def run() -> int:
    """Run the command line; Ctrl-C while it is still loading ends without a traceback too."""
    try:
        from gpt4image.cli import main

        return main()
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted before anything began.\n")
        return 130


if __name__ == "__main__":
    sys.exit(run())
