"""Ctrl-C, SIGTERM and SIGHUP: the first one asks to stop at a good place, the second one stops at once."""

import contextlib
import os
import signal
import threading
from collections.abc import Generator
from dataclasses import dataclass
from types import FrameType
from typing import Any

ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""Signals that ask a process to end: of a scheduler or ``kill``, and of a terminal that is closed."""
SIGNALS = (signal.SIGINT, *ENDING)


@dataclass
class Interrupt:
    """Ctrl-C, pressed once (``requested``) or twice (``insisted``)."""

    requested: bool = False
    insisted: bool = False
    _held: bool = False

    @contextlib.contextmanager
    def held(self) -> Generator[None]:
        """Let the block finish; a second interrupt in it raises KeyboardInterrupt at its end."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
        if self.insisted:
            raise KeyboardInterrupt

    def on_signal(self, _number: int, _frame: FrameType | None) -> None:
        """Note the first signal; raise KeyboardInterrupt at the second, unless held."""
        self.insisted = self.requested
        self.requested = True
        if self.insisted and not self._held:
            raise KeyboardInterrupt


@contextlib.contextmanager
def ended_like_ctrl_c() -> Generator[None]:
    """Let SIGTERM and SIGHUP do in the block what Ctrl-C does there, in the main thread; what is ignored stays so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner = os.getpid()

    def on_signal(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a process that was forked off ends as it would have
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        on_ctrl_c = signal.getsignal(signal.SIGINT)
        if not callable(on_ctrl_c):  # as in a job that a shell started in the background
            raise KeyboardInterrupt
        on_ctrl_c(number, frame)

    taken = [number for number in ENDING if signal.getsignal(number) == signal.SIG_DFL]
    for number in taken:
        signal.signal(number, on_signal)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def deferred_interrupt() -> Generator[Interrupt]:
    """Turn the first SIGINT in the block into ``requested``; a second one raises. Only in the main thread."""
    asked = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = signal.signal(signal.SIGINT, asked.on_signal)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def starting_processes() -> Generator[None]:
    """Hold Ctrl-C, SIGTERM and SIGHUP back until the block has started its processes, then let them act.

    The new processes begin with these signals blocked, until each calls ``started``: none ends while it is importing.
    """
    held: set[int] = set()
    handlers: dict[int, Any] = {}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS) if hasattr(signal, "pthread_sigmask") else None
    try:
        if threading.current_thread() is threading.main_thread():
            # Another thread of this process may take the signal, and Python would then interrupt the block.
            for number in SIGNALS:
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    handlers[number] = signal.signal(number, lambda number, _frame: held.add(number))
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if before is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for number in held:
            signal.raise_signal(number)  # os.kill would end a process of Windows at once


def started(*, forget: bool) -> None:
    """Let signals reach this process of ``starting_processes``; ``forget`` earlier ones. It leaves its group."""
    if hasattr(signal, "pthread_sigmask"):
        os.setpgid(0, 0)
        while forget and (sent := signal.sigpending() & set(SIGNALS)):
            signal.sigwait(sent)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


class Stopped(BaseException):
    """A thread was asked to stop."""


_asked = threading.local()


@contextlib.contextmanager
def stopped_by(event: threading.Event) -> Generator[None]:
    """Let ``stop_here`` raise Stopped in this thread, in the block, once the event is set."""
    _asked.event = event
    try:
        yield
    finally:
        del _asked.event


def stop_here() -> None:
    """Raise Stopped where this thread was asked to stop: for the inner loop of long work."""
    event = getattr(_asked, "event", None)
    if event is not None and event.is_set():
        raise Stopped
