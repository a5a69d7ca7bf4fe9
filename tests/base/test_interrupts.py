"""Ctrl-C: the first one is noted, the second one is heard, though not in the middle of what must be finished."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from gpt4image.base.interrupts import SIGNALS, deferred_interrupt, starting_processes


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """A job that a shell started in the background ignores Ctrl-C; here it is heard."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_the_first_is_noted_and_the_second_raises() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), deferred_interrupt() as interrupt:
        press()
        assert interrupt.requested and not interrupt.insisted
        press()
    assert signal.getsignal(signal.SIGINT) is before
    thread = threading.Thread(target=deferred_interrupt().__enter__)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGINT) is before, "other threads are left alone"


def test_what_is_held_is_finished_first() -> None:
    finished = False
    with pytest.raises(KeyboardInterrupt), deferred_interrupt() as interrupt:
        with interrupt.held():
            press()
        assert interrupt.requested
        with interrupt.held():
            press()
            finished = True
        pytest.fail("the second interrupt is heard at the end of the block")
    assert finished


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="no signal mask")
def test_a_signal_waits_until_processes_are_started_and_these_begin_with_it_blocked() -> None:
    code = "import signal; print(signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, ()))"
    blocked = ""
    with pytest.raises(KeyboardInterrupt), starting_processes():
        press()
        blocked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert blocked == "True\n"
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & set(SIGNALS)
