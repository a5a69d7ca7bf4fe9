"""Workers on a Ray cluster: actors that each hold a copy of the same work and turn payloads into results.

Actors are made once, so that a model is loaded once per worker. Ray starts an actor that died again, and gives it its
calls again. A call whose worker died ``MOST_TRIES`` times is lost: it is reported instead of killing workers for ever.
Where a machine is lost, the run ends with all that came.
"""

from __future__ import annotations

import importlib
import logging
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt4image.base.errors import ConfigError, Gpt4ImageError, MissingExtraError, RunError, first_line

MOST_TRIES = 3
SECONDS_TO_CONNECT = 5.0
SECONDS_TO_LOOK = 5.0  # without a result, until it is seen whether a machine was lost
SECONDS_UNTIL_LOST = 60.0  # after which a machine that does not answer is taken for slow

_LOST_MACHINE = "The Ray cluster lost a machine. Give the same command again to go on."

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


@dataclass(frozen=True)
class Result:
    """What became of the payload with a number: what the work made of it, or the message of its Gpt4ImageError
    (``fault``), or nothing, because every worker that had it died (``lost``).
    """

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


class Cluster:
    """The Ray cluster of this process: one it is connected to already, that of RAY_ADDRESS, or a new one here.

    Raises:
        MissingExtraError: Ray is not installed.
        RunError: there is no cluster at RAY_ADDRESS.
    """

    def __init__(self) -> None:
        require_ray()
        import ray

        self._ours = not ray.is_initialized()
        if self._ours:
            address = os.environ.get("RAY_ADDRESS", "")
            try:
                host, _, port = address.removeprefix("ray://").rpartition(":")
                if host and port.isdigit():  # Ray itself retries for minutes
                    socket.create_connection((host, int(port)), SECONDS_TO_CONNECT).close()
                ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
            except (OSError, ValueError, RuntimeError) as error:
                where = f"there is no Ray cluster at RAY_ADDRESS={address}" if address else "Ray does not start here"
                raise RunError(f"--engine ray: {where} ({first_line(error)}).") from None
        resources = ray.cluster_resources()
        self.cpus, self.gpus = (int(resources.get(kind, 0)) for kind in ("CPU", "GPU"))

    def workers(self, wanted: int | None, *, on_gpu: bool) -> int:
        """Return how many workers to start: as many as there is room for without ``wanted``. Raises ConfigError."""
        room, what = (self.gpus, "GPU") if on_gpu else (self.cpus, "CPU")
        if (wanted is not None and wanted > room) or room == 0:
            raise ConfigError(f"--workers {wanted or 1}: each takes a {what}, and the Ray cluster has {room}.")
        return wanted or room

    def close(self) -> None:
        """Leave the cluster where it was joined here; one that was started here ends."""
        if self._ours:
            import ray

            ray.shutdown()


class Workers:
    """A number of workers, each with a copy of the same work. For one thread; ``close`` it in the end.

    Attributes:
        room: number of payloads that keep all workers busy.
    """

    def __init__(
        self,
        cluster: Cluster,
        make: Callable[..., Work],
        arguments: Sequence[Any],
        *,
        count: int,
        calls: int,
        gpu: bool,
    ) -> None:
        """Prepare ``count`` workers that hold ``make(*arguments)`` each, made at their first call.

        Args:
            cluster: where they run.
            make: a function or class that the workers can import.
            arguments: its arguments, sent once to each worker.
            count: number of workers.
            calls: how many calls a worker has at once, each in a thread.
            gpu: reserve one GPU per worker in place of one CPU.
        """
        import ray

        takes = {"num_gpus": 1, "num_cpus": 0} if gpu else {"num_cpus": 1}
        # One thread more than calls, which answers where the worker is.
        remote: Any = ray.remote
        retrying = {"max_restarts": -1, "max_task_retries": MOST_TRIES - 1}
        actor = remote(**takes, **retrying, max_concurrency=calls + 1)(_Worker)
        self._actors: list[Any] = [actor.remote(make, tuple(arguments), str(Path.cwd())) for _ in range(count)]
        self._cluster, self._calls, self.room = cluster, calls, count * calls
        self._waiting: dict[Any, tuple[int, int]] = {}  # number of the payload and of its worker
        self._sent, self._closed, self._kept = 0, False, list[Result]()
        self._most_machines = _machines()

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
            self._require_machines()
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
            self._cluster.close()

    def _keep(self) -> None:
        import ray

        if self._waiting and not self._closed:
            for done in ray.wait(list(self._waiting), num_returns=len(self._waiting), timeout=0)[0]:
                with suppress(Exception):  # what stops the run is raised already
                    self._kept.append(self._result(done))

    def _result(self, done: Any) -> Result:
        import ray
        from ray.exceptions import ActorUnavailableError, RayActorError, RayError, RayTaskError

        number, _ = self._waiting.pop(done)
        try:
            payload, fault = ray.get(done)
            return Result(number, payload, fault)
        except RayActorError as error:
            # A machine that does not answer is known to be lost only after some health checks.
            until = time.monotonic() + (SECONDS_UNTIL_LOST if isinstance(error, ActorUnavailableError) else 0)
            while _machines() >= self._most_machines and time.monotonic() < until:
                time.sleep(SECONDS_TO_LOOK)
            if _machines() < self._most_machines:
                raise RunError(_LOST_MACHINE) from None
            return Result(number, lost=True)
        except RayTaskError:  # a bug in the work, with its traceback
            raise
        except RayError as error:
            raise RunError(
                f"The Ray cluster failed: {first_line(error)}. Give the same command again to go on."
            ) from None

    def _require_machines(self) -> None:
        """Raise RunError where a machine is lost, nothing took its place, and no other one is at work."""
        import ray
        from ray.exceptions import RayError

        alive = _machines()
        self._most_machines = max(self._most_machines, alive)
        if alive == self._most_machines:
            return
        at_work = {worker for _, worker in self._waiting.values()}
        for answer in ray.wait([self._actors[worker].is_alive.remote() for worker in at_work], timeout=SECONDS_TO_LOOK)[
            0
        ]:
            with suppress(RayError):
                ray.get(answer)
                return
        raise RunError(_LOST_MACHINE)


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

    def is_alive(self) -> bool:
        """Return at once."""
        return True
