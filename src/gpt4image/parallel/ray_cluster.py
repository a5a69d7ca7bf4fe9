"""Workers on a Ray cluster: objects with state, copied into actors of Ray Data, that turn payloads into results.

One streaming execution of Ray Data serves a whole run. Its source is a line of payloads that the driver lengthens as it
goes, one row and one block each; its actors are made once, so that a model is loaded once per worker. A Dataset per
round would end its actors, and models with them, after each.

Ray starts actors that died again, and gives them their calls again. A call that was given out ``MOST_TRIES`` times and
never came back is lost: it is reported instead of killing workers for ever.

Ray waits for a lost machine, and for its calls, as long as it takes. A run ends instead, with all that came, as soon as
the other machines have nothing left to do.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import queue
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt4image.base.errors import ConfigError, Gpt4ImageError, MissingExtraError, RunError, first_line

MOST_TRIES = 3
SECONDS_TO_STOP = 2.0
SECONDS_TO_CONNECT = 5.0
SECONDS_TO_LOOK = 5.0  # without a result, until it is seen whether a machine was lost

Work = Callable[[bytes], bytes]

# Ray reads these when it is imported: it sends no news home, says nothing but errors that are raised, and starts no new
# cluster for a thread that is late to hear of the end of the old one.
_RAY_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # else it tells of dead workers on standard output
    "RAY_ENABLE_AUTO_CONNECT": "0",
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
    """Raise MissingExtraError where Ray Data is not installed."""
    for name, value in _RAY_SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        importlib.import_module("ray.data")
    except ModuleNotFoundError:
        raise MissingExtraError("--engine ray", "ray") from None


class Cluster:
    """The Ray cluster of this process: one it is connected to already, that of RAY_ADDRESS, or a new one here.

    Raises:
        MissingExtraError: Ray Data is not installed.
        RunError: there is no cluster at RAY_ADDRESS.
    """

    def __init__(self) -> None:
        require_ray()
        import ray

        self._ours = not ray.is_initialized()
        if self._ours:
            address = os.environ.get("RAY_ADDRESS", "")
            try:
                _knock(address)  # Ray itself would knock for minutes
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


class _Line:
    """Payloads on their way to the workers: an actor, as the task that reads it may run on any machine."""

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue()
        self._tries: Counter[int] = Counter()
        self._running: dict[int, str] = {}

    async def put(self, item: tuple[int, bytes] | None) -> None:
        await self._waiting.put(item)

    async def take(self) -> tuple[int, bytes] | None:
        return await self._waiting.get()

    async def begin(self, number: int, machine: str) -> int:
        """Return how often a payload was given to a worker, this time included."""
        self._tries[number] += 1
        self._running[number] = machine
        return self._tries[number]

    async def end(self, number: int) -> None:
        del self._tries[number], self._running[number]

    async def machines(self) -> set[str]:
        """Return the machines whose workers have a payload."""
        return set(self._running.values())


class Workers:
    """A number of workers, each with a copy of the same work. For one thread; ``close`` it in the end.

    Attributes:
        room: number of payloads that keep all workers busy.
        pending: number of payloads sent whose result was not received.
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
            calls: how many calls a worker runs at once, each in a thread.
            gpu: reserve one GPU per worker in place of one CPU.
        """
        import ray

        self._cluster = cluster
        self._line: Any = ray.remote(num_cpus=0, label_selector=_here())(_Line).remote()
        self.room = count * (calls + 1)  # one more than runs, so that the next is at hand when a call ends
        self.pending = self._sent = 0
        self._closed, self._most_machines = False, len(_machines())
        self._results: queue.SimpleQueue[Result | None] = queue.SimpleQueue()
        # Held here: a worker that is started again needs its arguments again.
        self._arguments = ray.put((make, tuple(arguments), str(Path.cwd())))
        rows = _dataset(self._line, self._arguments, count=count, calls=calls, gpu=gpu)
        self._pump = in_background(self._receive_all, rows)
        self._pump.add_done_callback(lambda _: self._results.put(None))

    @property
    def has_room(self) -> bool:
        """Whether another payload would find a worker soon."""
        return self.pending < self.room

    def send(self, payload: bytes) -> int:
        """Send a payload to the next worker that has room and return its number: 0, 1, ..."""
        number = self._sent
        self._line.put.remote((number, payload))
        self._sent += 1
        self.pending += 1
        return number

    def receive(self) -> Result:
        """Wait for the next result, in any order. Raises RunError: the cluster failed, or lost a machine."""
        while True:
            with suppress(queue.Empty):
                result = self._results.get(timeout=SECONDS_TO_LOOK)
                break
            self._require_machines()
        if result is None:
            self._results.put(None)
            raise self._explain()
        self.pending -= 1
        return result

    def received(self) -> Iterator[Result]:
        """Yield the results that have come, without waiting."""
        with suppress(queue.Empty):
            while (result := self._results.get_nowait()) is not None:
                self.pending -= 1
                yield result
            self._results.put(None)

    def close(self) -> None:
        """End the workers; calls that they still run are given up. ``received`` has what came until then."""
        import ray

        if self._closed:
            return
        self._closed = True
        if self.pending:
            ray.kill(self._line)  # the task that reads it fails, and Ray Data ends its actors
        else:
            self._line.put.remote(None)
        wait([self._pump], SECONDS_TO_STOP)
        self._cluster.close()

    def _require_machines(self) -> None:
        """Raise RunError where a machine is lost, nothing took its place, and no other one is at work."""
        import ray

        alive = _machines()
        self._most_machines = max(self._most_machines, len(alive))
        at_work: Any = ray.get(self._line.machines.remote()) if len(alive) < self._most_machines else alive
        if not alive & at_work:
            raise RunError(
                "The Ray cluster lost a machine; the others have no work left. Give the same command again to go on."
            )

    def _receive_all(self, rows: Iterator[Any]) -> None:
        for table in rows:
            for row in table.to_pylist():
                self._results.put(Result(**row))

    def _explain(self) -> BaseException:
        from ray.exceptions import RayError, RayTaskError

        error = self._pump.exception()
        if isinstance(error, RayTaskError):  # a bug in the work, with its traceback
            return error
        reason = "it ended the workers" if error is None else first_line(error)
        if error is None or isinstance(error, RayError):
            return RunError(f"The Ray cluster failed: {reason}. Give the same command again to go on.")
        return error


def in_background(function: Callable[..., None], *arguments: Any) -> Future[None]:
    """Call a function in a daemon thread, which does not keep its process alive, and return what comes of it."""
    outcome: Future[None] = Future()

    def run() -> None:
        try:
            outcome.set_result(function(*arguments))
        except BaseException as error:  # noqa: BLE001  (the future raises it again)
            outcome.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return outcome


def _dataset(line: Any, arguments: Any, *, count: int, calls: int, gpu: bool) -> Iterator[Any]:
    """Start the execution and return its output: Arrow tables with the fields of Result."""
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # errors are raised
    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.target_max_block_size = 1  # else rows wait for others to fill a block of 128 MiB
    with ray.data.DataContext.current(context):
        calls_in = ray.data.read_datasource(
            _line_source(line), override_num_blocks=1, num_cpus=0, label_selector=_here()
        )
        results = calls_in.map_batches(
            _Worker,
            batch_size=None,
            batch_format="pyarrow",
            fn_constructor_args=(line, arguments),
            compute=ray.data.ActorPoolStrategy(
                size=count,
                max_tasks_in_flight_per_actor=calls + 1,
                max_concurrent_calls_per_actor=calls,
                enable_true_multi_threading=True,
            ),
            num_gpus=1 if gpu else 0,
            num_cpus=0 if gpu else 1,
        )
    return iter(results.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0))


def _machines() -> set[str]:
    """Return the machines of the cluster that are alive."""
    import ray

    return {str(node["NodeID"]) for node in ray.nodes() if node["Alive"]}


def _here() -> dict[str, str]:
    """Return where the line and its reader run: beside the driver, so that a lost machine takes workers alone."""
    import ray

    return {"ray.io/node-id": ray.get_runtime_context().get_node_id()}


def _line_source(line: Any) -> Any:
    import pyarrow as pa
    import ray
    from ray.data import Datasource
    from ray.data.block import BlockMetadata
    from ray.data.datasource import ReadTask

    def taken() -> Any:
        return ray.get(line.take.remote())

    def read() -> Iterator[Any]:
        for item in iter(taken, None):
            yield pa.table({"number": [item[0]], "payload": [item[1]]})

    class LineSource(Datasource):
        def estimate_inmemory_data_size(self) -> int | None:
            return None

        def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:
            return [ReadTask(read, BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None))]

    return LineSource()


class _Worker:
    """What runs in an actor of Ray Data: takes a table of one payload, returns a table of one result."""

    def __init__(self, line: Any, arguments: Any) -> None:
        self._line, self._arguments, self._lock = line, arguments, threading.Lock()
        self._work: Work | None = None

    def __call__(self, table: Any) -> Any:
        import pyarrow as pa
        import ray

        (row,) = table.to_pylist()
        number: int = row["number"]
        result = Result(number, lost=True)
        tries: Any = ray.get(self._line.begin.remote(number, ray.get_runtime_context().get_node_id()))
        if tries <= MOST_TRIES:
            try:
                result = Result(number, self._made()(row["payload"]))
            except Gpt4ImageError as error:
                result = Result(number, fault=str(error))
        ray.get(self._line.end.remote(number))
        return pa.Table.from_pylist([vars(result)])

    def _made(self) -> Work:
        """Return the work; made here and not in the constructor, so that what it raises is the result of a call."""
        import ray

        with self._lock:
            if (work := self._work) is None:
                make, arguments, folder = ray.get(self._arguments)
                with suppress(OSError):  # paths are relative to the driver's folder, where machines share it
                    os.chdir(folder)
                work = self._work = make(*arguments)
            return work


def _knock(address: str) -> None:
    """Raise OSError where ``address`` is a host and a port that nobody listens at."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), SECONDS_TO_CONNECT).close()
