"""Workers on a Ray cluster: actors that each hold a copy of the same work, in Ray's ``ActorPool``.

Actors are made once, so that a model is loaded once per worker. Ray starts an actor that died again, and gives it its
calls again, up to ``MOST_TRIES`` times.
"""

import importlib
import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from gpt4image.base.errors import ConfigError, Gpt4ImageError, MissingExtraError, RunError, first_line

MOST_TRIES = 3
_SECONDS_TO_CONNECT = 5.0
# Ray reads these when it is imported: no telemetry, no output but errors that are raised, no cluster by itself.
_RAY_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # else it tells of dead workers on standard output
    "RAY_ENABLE_AUTO_CONNECT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


def require_ray() -> None:
    """Raise MissingExtraError where Ray is not installed."""
    os.environ.update({name: value for name, value in _RAY_SETTINGS.items() if name not in os.environ})
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
            socket.create_connection((host, int(port)), _SECONDS_TO_CONNECT).close()
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError) as error:
        where = f"there is no Ray cluster at RAY_ADDRESS={address}" if address else "Ray does not start here"
        raise RunError(f"--engine ray: {where} ({first_line(error)}).") from None
    return True


class Workers:
    """Workers that each make one work, a function, of the same ``arguments``, which may depend on their number.

    There are ``wanted`` of them, or as many as there is room for and at most ``most``; each takes a GPU (``gpu``) where
    the cluster has some. ``close`` them in the end.
    """

    def __init__(
        self,
        make: Callable[..., Callable[[Any], Any]],
        arguments: Callable[[int], Sequence[Any]],
        wanted: int | None,
        *,
        gpu: bool,
        most: int | None = None,
    ) -> None:
        self._ours = connect()
        import ray
        from ray.util import ActorPool

        resources = ray.cluster_resources()
        kind = "GPU" if gpu and resources.get("GPU", 0) >= 1 else "CPU"
        room = int(resources.get(kind, 0))
        if (wanted or 1) > room:
            raise ConfigError(f"--workers {wanted or 1}: each takes a {kind}, and the Ray cluster has {room}.")
        self.count = min(wanted or room, most or room)
        takes = {"num_gpus": 1, "num_cpus": 0} if kind == "GPU" else {"num_cpus": 1}
        remote: Any = ray.remote
        actor = remote(**takes, max_restarts=-1, max_task_retries=MOST_TRIES - 1)(_Worker)
        given = make, tuple(arguments(self.count)), str(Path.cwd())
        self._actors = [actor.remote(*given) for _ in range(self.count)]
        self._pool: Any = ActorPool(2 * self._actors)  # each has a call that waits behind the one it works on

    def map(self, values: Iterator[Any], *, ordered: bool) -> Iterator[Any]:
        """Yield what the work makes of each value, a few of which are on their way. Raises RunError and its errors."""
        while True:
            while self._pool.has_free() and (value := next(values, None)) is not None:
                self._pool.submit(_send, value)
            if not self._pool.has_next():
                return
            yield self._next(self._pool.get_next if ordered else self._pool.get_next_unordered)

    def finished(self) -> Iterator[Any]:
        """Yield what is there already of what ``map`` sent in no order."""
        with suppress(TimeoutError):
            while self._pool.has_next():
                yield self._next(lambda: self._pool.get_next_unordered(timeout=0))

    def _next(self, get: Callable[[], Any]) -> Any:
        from ray.exceptions import RayError, RayTaskError

        try:
            return get()
        except RayTaskError as error:
            if isinstance(cause := error.cause, Gpt4ImageError):
                raise type(cause)(str(cause)) from None
            raise
        except RayError as error:
            what = f"The Ray cluster failed ({first_line(error)}), most often because memory ran out."
            way = "Give the same command again to go on, perhaps with a smaller --batch-size or fewer --workers."
            raise RunError(f"{what} {way}") from None

    def close(self) -> None:
        """End the workers; calls that they still run are given up."""
        import ray

        for actor in self._actors:
            with suppress(Exception):  # of a machine that is lost
                ray.kill(actor)
        if self._ours:
            ray.shutdown()


def _send(actor: Any, value: Any) -> Any:
    return actor.work.remote(value)


class _Worker:
    """What runs in an actor; the work is made by the first call, so that what it raises is the result of a call."""

    def __init__(self, make: Callable[..., Any], arguments: Sequence[Any], folder: str) -> None:
        self._make, self._arguments, self._work = make, arguments, None
        with suppress(OSError):  # paths are relative to the driver's folder, where machines share it
            os.chdir(folder)

    def work(self, value: Any) -> Any:
        self._work = self._work or self._make(*self._arguments)
        return self._work(value)
