"""Independent jobs side by side in worker processes of this machine."""

import contextlib
import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import forkserver, resource_tracker
from types import FrameType, SimpleNamespace
from typing import Any

from gpt4image.base.errors import Gpt4ImageError, RunError
from gpt4image.base.interrupts import SIGNALS, started, starting_processes
from gpt4image.base.progress import progress_bar

Progress = Callable[[int, int, str], None]


_state = SimpleNamespace(messages=None, number=0, failed=None, busy=False, stopped=False)
"""What a worker process knows between jobs."""


def run_jobs(
    work: Callable[[Any, Progress], Any],
    jobs: Sequence[Any],
    names: Sequence[str],
    *,
    processes: int,
    title: str,
    on_end: Callable[[int, Any], None] = lambda _number, _result: None,
) -> list[Any]:
    """Return ``work(job, progress)`` of all jobs, in their order, from as many ``processes``, which keep their caches.

    ``on_end`` is called with number and result of each. ``work`` is a function of a module, and calls
    ``progress(done, total, note)``.
    """
    if not jobs:
        return []
    # A process of its own imports what the jobs need, and the workers come from it by fork: libraries are read once,
    # not once for each worker. Elsewhere libraries do not survive a fork.
    context = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
    multiprocessing.set_forkserver_preload([work.__module__])
    _start_helpers(context)
    messages: Any = context.Queue()
    begin = (messages, context.Value("i", 0), context.Event())
    pool = ProcessPoolExecutor(min(processes, len(jobs)), context, initializer=_start_worker, initargs=begin)
    try:
        results: list[Any] = [None] * len(jobs)
        share = [0.0] * len(jobs)
        with progress_bar(lines=False) as bar:
            task = bar.add_task(title, total=float(len(jobs)), note="")
            with starting_processes():
                number_of = {pool.submit(_run, work, job, number): number for number, job in enumerate(jobs)}
            pending = set(number_of)
            while pending:
                done, pending = wait(pending, timeout=0.3, return_when=FIRST_COMPLETED)
                with contextlib.suppress(queue.Empty):
                    while True:
                        number, share[number], note = messages.get_nowait()
                        bar.update(task, completed=sum(share), note=f"{names[number]}: {note}")
                for future in done:
                    number = number_of[future]
                    share[number] = 1.0
                    results[number] = _result(future, names[number])
                    on_end(number, results[number])
        return results
    except KeyboardInterrupt:
        for worker in multiprocessing.active_children():
            if worker.pid is not None:
                os.kill(worker.pid, signal.SIGINT)
        raise
    except BrokenProcessPool:
        raise RunError(
            "A worker process died, most often because memory ran out. Finished runs are kept: give the same command "
            "again, with a smaller --jobs."
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _result(future: Future[Any], name: str) -> Any:
    error = future.exception()
    if isinstance(error, Gpt4ImageError):
        error.args = (f"{name}: {error}",)
    return future.result()


def _start_helpers(context: Any) -> None:
    """Start what workers come from, and wait until it has imported what they need; Ctrl-C ends the wait."""
    if sys.platform == "win32":
        return

    def start_and_join() -> None:
        process = context.Process()  # does nothing
        process.start()
        process.join()

    with starting_processes():  # by itself: it lets SIGINT and SIGTERM through when it has started
        resource_tracker.ensure_running()
    if context.get_start_method() == "forkserver":
        with starting_processes():
            forkserver.ensure_running()
        with starting_processes():
            first = threading.Thread(target=start_and_join, daemon=True)
            first.start()
        first.join()


def worker_number() -> int:
    """Return which of the worker processes of ``run_jobs`` this is, from 0; 0 in any other process too."""
    return _state.number


def _start_worker(messages: Any, count: Any, failed: Any) -> None:
    _state.messages, _state.failed = messages, failed
    with count.get_lock():
        _state.number = count.value
        count.value += 1
    # A worker must not outlive its parent (kill -9 of the parent gives it no other sign).
    threading.Thread(target=_end_with_parent, daemon=True).start()
    for number in SIGNALS:
        signal.signal(number, _on_interrupt)
    started(forget=False)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _on_interrupt(_number: int, _frame: FrameType | None) -> None:
    _state.stopped = True
    if _state.busy:
        raise KeyboardInterrupt


def _run(work: Callable[[Any, Progress], Any], job: Any, number: int) -> Any:
    if _state.stopped:  # The pool hands out jobs ahead; those are not begun any more.
        raise KeyboardInterrupt
    if _state.failed.is_set():
        return None
    last = 0.0

    def progress(done: int, total: int, note: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last > 0.5:
            last = now
            _state.messages.put((number, done / total, note))

    _state.busy = True
    try:
        return work(job, progress)
    except KeyboardInterrupt:
        _state.stopped = True
        raise
    except Exception:
        _state.failed.set()  # here, before the pool hands out another job
        raise
    finally:
        _state.busy = False
