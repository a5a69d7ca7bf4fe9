"""Workers on a Ray cluster: actors that each hold a copy of the same work and turn payloads into results.

Actors are made once, so that a model is loaded once per worker. Ray starts an actor that died again, and gives it its
calls again. A call whose worker died ``MOST_TRIES`` times is lost: it is reported instead of killing workers for ever.
"""

from __future__ import annotations

import importlib
import logging
import os
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from gpt4image.base.errors import ConfigError, Gpt4ImageError, MissingExtraError, RunError, first_line

MOST_TRIES = 3
SECONDS_TO_CONNECT = 5.0
SECONDS_TO_LOOK = 5.0  # without a result, until it is seen whether a machine was lost

Work = Callable[[bytes], bytes]

# Ray reads these when it is imported: no telemetry, no output but errors that are raised, and no new cluster for a
# thread that is late to hear of the end of the old one.
_RAY_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # else it tells of dead workers on standard output
    "RAY_ENABLE_AUTO_CONNECT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


class Result(NamedTuple):
    """What became of a payload: a result, the message of its error (``fault``), or nothing (``lost``)."""

    number: int
    payload: bytes = b""
    fault: str | None = None
    lost: bool = False


def require_ray() -> None:
    """Raise MissingExtraError where Ray is not installed."""
    for name, value in _RAY_SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        importlib.import_module("ray")
    except ModuleNotFoundError:
        raise MissingExtraError("--engine ray", "ray") from None


def connect() -> bool:
    """Join the Ray cluster of RAY_ADDRESS, or start one here; return whether it is to be left again."""
    require_ray()
    import ray

    if ray.is_initialized():
        return False
    address = os.environ.get("RAY_ADDRESS", "")
    try:
        host, _, port = address.removeprefix("ray://").rpartition(":")
        if host and port.isdigit():  # Ray itself retries for minutes
            socket.create_connection((host, int(port)), SECONDS_TO_CONNECT).close()
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError) as error:
        where = f"there is no Ray cluster at RAY_ADDRESS={address}" if address else "Ray does not start here"
        raise RunError(f"--engine ray: {where} ({first_line(error)}).") from None
    return True


class Workers:
    """A number of workers, each with a copy of the same work. For one thread; ``close`` it in the end.

    ``make``, which the workers can import, makes the work of its ``arguments`` for a number of workers. There are
    ``wanted`` of them, or as many as there is room for and at most ``most``; each has so many ``calls`` at once, in
    threads, and takes a GPU (``gpu``) where the cluster has some. ``room`` payloads keep all busy.
    """

    def __init__(
        self,
        make: Callable[..., Work],
        arguments: Callable[[int], Sequence[Any]],
        wanted: int | None,
        *,
        calls: int,
        gpu: bool,
        most: int | None = None,
    ) -> None:
        self._waiting: dict[Any, tuple[int, int]] = {}  # number of the payload and of its worker
        self._sent, self._closed, self._kept = 0, False, list[Result]()
        self._actors: list[Any] = []
        self._ours = connect()
        import ray

        try:
            resources = ray.cluster_resources()
            kind = "GPU" if gpu and resources.get("GPU", 0) >= 1 else "CPU"
            room = int(resources.get(kind, 0))
            if (wanted or 1) > room:
                raise ConfigError(f"--workers {wanted or 1}: each takes a {kind}, and the Ray cluster has {room}.")
            self.count = min(wanted or room, most or room)
            self.room = self.count * calls
            takes = {"num_gpus": 1, "num_cpus": 0} if kind == "GPU" else {"num_cpus": 1}
            remote: Any = ray.remote
            retrying = {"max_restarts": -1, "max_task_retries": MOST_TRIES - 1}
            actor = remote(**takes, **retrying, max_concurrency=calls)(_Worker)
            given = make, tuple(arguments(self.count)), str(Path.cwd())
            self._actors += [actor.remote(*given) for _ in range(self.count)]
            self._most_machines = _machines()
        except BaseException:
            self.close()
            raise

    @property
    def pending(self) -> int:
        """Number of payloads sent whose result was not received."""
        return len(self._waiting)

    @property
    def has_room(self) -> bool:
        """Whether another payload would find a worker soon."""
        return self.pending < self.room

    def send(self, payload: bytes) -> int:
        """Send a payload to the worker with the fewest and return its number: 0, 1, ..."""
        load = Counter(worker for _, worker in self._waiting.values())
        worker = min(range(len(self._actors)), key=load.__getitem__)
        self._waiting[self._actors[worker].call.remote(payload)] = self._sent, worker
        self._sent += 1
        return self._sent - 1

    def receive(self) -> Result:
        """Wait for the next result, in any order. Raises RunError: the cluster failed, or lost a machine."""
        import ray

        while not (done := ray.wait(list(self._waiting), timeout=SECONDS_TO_LOOK)[0]):
            alive = _machines()
            self._most_machines = max(self._most_machines, alive)
            if alive < self._most_machines:  # its calls may wait for ever
                raise RunError("The Ray cluster lost a machine. Give the same command again to go on.")
        return self._result(done[0])

    def received(self) -> Iterator[Result]:
        """Yield the results that have come, without waiting."""
        self._keep()
        while self._kept:
            yield self._kept.pop(0)

    def close(self) -> None:
        """End the workers; calls that they still run are given up. ``received`` has what came until then."""
        import ray

        if not self._closed:
            self._keep()
            self._closed = True
            for actor in self._actors:
                with suppress(Exception):  # of a machine that is lost
                    ray.kill(actor)
            if self._ours:
                ray.shutdown()

    def _keep(self) -> None:
        import ray

        if self._waiting and not self._closed:
            for done in ray.wait(list(self._waiting), num_returns=len(self._waiting), timeout=0)[0]:
                with suppress(Exception):  # what stops the run is raised already
                    self._kept.append(self._result(done))

    def _result(self, done: Any) -> Result:
        import ray
        from ray.exceptions import RayActorError, RayError, RayTaskError

        number, _ = self._waiting.pop(done)
        try:
            payload, fault = ray.get(done)
            return Result(number, payload, fault)
        except RayActorError:
            return Result(number, lost=True)
        except RayTaskError:  # a bug in the work, with its traceback
            raise
        except RayError as error:
            raise RunError(
                f"The Ray cluster failed: {first_line(error)}. Give the same command again to go on."
            ) from None


def _machines() -> int:
    import ray

    return sum(bool(node["Alive"]) for node in ray.nodes())


class _Worker:
    """What runs in an actor."""

    def __init__(self, make: Callable[..., Work], arguments: Sequence[Any], folder: str) -> None:
        self._make, self._arguments, self._lock = make, arguments, threading.Lock()
        self._work: Work | None = None
        with suppress(OSError):  # paths are relative to the driver's folder, where machines share it
            os.chdir(folder)

    def call(self, payload: bytes) -> tuple[bytes, str | None]:
        """Return what the work makes of a payload, or the message of its error."""
        try:
            with self._lock:  # made here and not in the constructor, so that what it raises is the result of a call
                if (work := self._work) is None:
                    work = self._work = self._make(*self._arguments)
            return work(payload), None
        except Gpt4ImageError as error:
            return b"", str(error)
