"""How this process was started: alone, or as one of several by torchrun or ``accelerate launch``.

Both tell a process its place by environment variables, and nothing else is read here, so that the command line knows
whether to speak before anything heavy is imported.
"""

import contextlib
import os
from collections.abc import Generator


def count() -> int:
    """Number of processes that were started for this command."""
    return int(os.environ["WORLD_SIZE"]) if {"WORLD_SIZE", "RANK"} <= os.environ.keys() else 1


def rank() -> int:
    """Return the number of this process among all, from 0."""
    return int(os.environ["RANK"]) if count() > 1 else 0


def local_rank() -> int:
    """Return the number of this process among those of this machine, from 0."""
    return int(os.environ.get("LOCAL_RANK", "0")) if count() > 1 else 0


def local_count() -> int:
    """Return the number of processes on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if count() > 1 else 1


@contextlib.contextmanager
def only_first_speaks() -> Generator[None]:
    """Drop what all but the first process print inside the block."""
    if rank() == 0:
        yield
        return
    with (
        open(os.devnull, "w", encoding="utf-8") as nowhere,  # noqa: PTH123 (a device, no file)
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        yield
