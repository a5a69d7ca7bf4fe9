"""Trackers: what a run measures, shown by TensorBoard, Weights & Biases, MLflow or trackio, through accelerate.

metrics.jsonl holds the same and is always written; what a tracker fails at costs no run.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gpt4image.artifacts import runs
from gpt4image.base.errors import MissingExtraError
from gpt4image.base.files import fingerprint
from gpt4image.base.progress import say
from gpt4image.parallel import processes
from gpt4image.parallel.devices import choose_device

OnEpoch = Callable[[Mapping[str, Any]], None]
MayStop = Callable[[Mapping[str, Any]], bool | None]
"""Takes a row of metrics.jsonl; False ends the training."""
PROJECT = "gpt4image"


def require_trackers(names: Iterable[str]) -> None:
    """Check that the packages of trackers are here; each is the extra of its name. Raises MissingExtraError."""
    for name in names:
        if any(importlib.util.find_spec(package) is None for package in ("accelerate", name)):
            raise MissingExtraError(f"--track {name}", name)


@contextmanager
def tracked(names: Iterable[str], out: Path, record: Mapping[str, Any]) -> Generator[OnEpoch]:
    """Show a run in trackers; only the first process does.

    Args:
        names: of the trackers.
        out: run folder; TensorBoard and wandb write there, the others where their own settings say.
        record: what config.json holds.

    Yields:
        What takes a row of metrics.jsonl.
    """
    trackers: dict[str, Any] = dict.fromkeys(() if processes.rank() > 0 else names)

    def each(act: Callable[[str], Any]) -> None:
        for name in list(trackers):
            try:
                act(name)
            except Exception as error:  # noqa: BLE001  a tracker's network or disk is no reason to lose a run
                say(f"--track {name} stops: {error}")
                del trackers[name]

    each(lambda name: trackers.update({name: _start(name, out, record)}))
    try:
        yield lambda row: each(lambda name: trackers[name].log(_numbers(row), step=row["step"]))
    finally:
        each(lambda name: trackers[name].finish())


def _start(name: str, out: Path, record: Mapping[str, Any]) -> Any:
    from accelerate import PartialState, tracking

    PartialState(cpu=choose_device(record["device"]).type == "cpu")  # trackers ask it which process is the first
    title = out.name if record["arm"] == "train" else f"{record['arm']}-{out.name}"
    ours = fingerprint([str(out.resolve()), runs.identity(dict(record))])[:16]
    made: dict[str, Callable[[], Any]] = {
        "tensorboard": lambda: tracking.TensorBoardTracker("tensorboard", logging_dir=out),
        "wandb": lambda: tracking.WandBTracker(PROJECT, name=title, dir=out, id=ours, resume="allow"),
        "mlflow": lambda: tracking.MLflowTracker(PROJECT, run_name=title),
        "trackio": lambda: tracking.TrackioTracker(PROJECT, name=title, resume="allow"),
    }
    tracker = made[name]()
    tracker.start()
    plain = {key: value if isinstance(value, int | float | str) else json.dumps(value) for key, value in record.items()}
    tracker.store_init_configuration(plain)
    return tracker


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a row, those of the validation split as ``val/NAME``."""
    val = {f"val/{name}": value for name, value in (row["val"] or {}).items()}
    return {key: value for key, value in {**row, **val}.items() if isinstance(value, int | float)}
