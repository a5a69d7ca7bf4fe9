"""Search settings on the validation split, the baseline's as hard as ours.

    python benchmarks/search.py benchmarks/spaces/baseline-vit.toml --data hf:DATA/images --embeddings cifar.emb \
        --out search.jsonl --labels-per-class 10 --seeds 3

A space is a TOML file: options at the top are shared; every table ``["name of the trial"]`` holds options of one trial,
and may name its ``arm`` (baseline without it; any of docs/compare.md that needs no finished run). Trials that are in
--out already, with the same data and options, are not run again; rows of an earlier version, which do not say of which
data they are, stay and do not count. The test split is not read. docs/research/log.md says what was found.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
import tomllib
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from gpt4image.base.errors import Gpt4ImageError
from gpt4image.base.files import append_json_line, read_json_lines, write_json_lines

MEASURED = ("val_top1", "seconds")


@dataclasses.dataclass(frozen=True)
class Search:
    space: Path
    """TOML file of trials."""
    data: str
    """Image set SPEC."""
    embeddings: Path
    """Table that says which images are described; training uses those alone."""
    out: Path
    """JSON lines to append to."""
    labels_per_class: int | None = None
    label_noise: float = 0.0
    seeds: int = 2
    first_seed: int = 0
    only: tuple[str, ...] = ()
    """Trials to run; all without it."""
    processes: int = 2


def trials(search: Search) -> dict[str, dict[str, Any]]:
    """Return the options of every trial, shared ones included."""
    space = tomllib.loads(search.space.read_text(encoding="utf-8"))
    shared = {name: value for name, value in space.items() if not isinstance(value, dict) or name == "model_args"}
    own = {name: value for name, value in space.items() if name not in shared}
    if unknown := set(search.only) - set(own):
        raise SystemExit(f"--only {', '.join(sorted(unknown))}: {search.space} has {', '.join(own)}.")
    return {name: shared | options for name, options in own.items() if not search.only or name in search.only}


def waiting(search: Search) -> list[tuple[str, dict[str, Any], int]]:
    """Return name, options and seed of the trials that --out lacks, seed by seed.

    Spaces share names such as "baseline": a trial of the same name with other options is another one.
    """
    rows = read_json_lines(search.out) if search.out.is_file() else []
    done = [{name: value for name, value in row.items() if name not in MEASURED} for row in rows]
    asked = [
        (name, options, seed)
        for seed in range(search.first_seed, search.first_seed + search.seeds)
        for name, options in trials(search).items()
    ]
    return [job for job in asked if identity(search, *job) not in done]


def mend(out: Path) -> None:
    """Take a last line away that was cut short when its process was killed: what is appended would be joined to it."""
    if out.is_file() and not out.read_bytes().endswith(b"\n"):
        write_json_lines(out, read_json_lines(out))


def identity(search: Search, name: str, options: dict[str, Any], seed: int) -> dict[str, Any]:
    """Return what tells a trial from others, as --out holds it."""
    return {
        "trial": name,
        "seed": seed,
        "data": search.data,
        "embeddings": str(search.embeddings),
        "labels_per_class": search.labels_per_class,
        "label_noise": search.label_noise,
        "options": options,
    }


def one(search: Search, options: dict[str, Any], seed: int) -> tuple[float, float]:
    """Return the validation accuracy of one run, and its seconds."""
    from gpt4image.artifacts.runs import read_run
    from gpt4image.comparing.arms import training_data
    from gpt4image.comparing.compare import situation
    from gpt4image.comparing.planning import Job, Regime
    from gpt4image.config import TrainConfig
    from gpt4image.config.arms import ARMS
    from gpt4image.encoding.class_names import ClassNames, find_class_names
    from gpt4image.parallel.devices import cpu_threads
    from gpt4image.training import loop
    from gpt4image.training.prepare import prepare
    from gpt4image.training.train import run

    loop.VALIDATIONS = 1  # the last one is all that a search reads, and it reads many images
    options = dict(options)
    arm = options.pop("arm", "baseline")
    common = {
        "data": search.data,
        "embeddings": search.embeddings,
        "only_described": True,
        "threads": 1,
        "precision": "bf16",
        "memory_format": "channels_last",
        "seed": seed,
        "out": Path("unused"),
        **ARMS[arm].options,
        **options,
    }
    config = TrainConfig(**common)
    with cpu_threads(1), tempfile.TemporaryDirectory() as folder:
        ready = prepare(config, splits=("train", "val"))
        names = ClassNames()
        if ARMS[arm].text:
            names = find_class_names(search.embeddings, config.device, ready.data.classes)
        job = Job(
            arm=arm,
            name=arm,
            config=ready.config,
            shared=ready.config,
            chosen=ready.chosen,
            regime=Regime(labels_per_class=search.labels_per_class, label_noise=search.label_noise),
            teacher=None,
            class_names=names,
        )
        ready = dataclasses.replace(ready, data=training_data(ARMS[arm], situation(job, ready.data)))
        started = time.monotonic()
        run(ready, Path(folder) / "run", arm=arm, resume=False, on_step=lambda *_: None)
        return read_run(Path(folder) / "run")["metrics"][-1]["val"]["top1"], time.monotonic() - started


def main() -> None:
    from command_line import parsed

    search = parsed(Search, "space")
    mend(search.out)
    jobs = waiting(search)
    with ProcessPoolExecutor(search.processes, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(one, search, options, seed): (name, options, seed) for name, options, seed in jobs}
        for future in as_completed(futures):
            name, options, seed = futures[future]
            try:
                value, seconds = future.result()
            except Gpt4ImageError as error:  # no finding: the same command tries it again
                print(f"{name:50s} seed {seed}  failed: {error}", flush=True)
                continue
            row = identity(search, name, options, seed) | {"val_top1": round(value, 4), "seconds": round(seconds, 1)}
            print(f"{name:50s} seed {seed}  {value:.4f}  {seconds:.0f} s", flush=True)
            append_json_line(search.out, row)


if __name__ == "__main__":
    main()
