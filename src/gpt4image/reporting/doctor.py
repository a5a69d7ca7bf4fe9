"""The stage doctor: what is installed, what is missing for which use, and whether what stages wrote is whole.

A file is compared to the checksum that it carries (JSON records, text labels, weights) or that the record or model card
of its folder keeps of it. Nothing is changed, and what the user has put into a folder is passed over.
"""

from __future__ import annotations

import contextlib
import math
import os
import platform
import re
import sqlite3
from collections.abc import Callable, Iterator
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, NamedTuple

from gpt4image.artifacts import runs
from gpt4image.artifacts.runs import COMPARISON
from gpt4image.artifacts.stage_records import RECORD as STAGES
from gpt4image.artifacts.store import APPLICATION_ID, References, connect_reader
from gpt4image.artifacts.store import MEND as STORE_MEND
from gpt4image.artifacts.table import MANIFEST as TABLE
from gpt4image.artifacts.targets import TARGETS, BoxLabels, Targets, holds_boxes
from gpt4image.base import plugins
from gpt4image.base.checksums import (
    FILES,
    MEND,
    SEAL,
    card_checksums,
    damaged,
    file_digest,
    recorded_files,
    require_recorded,
)
from gpt4image.base.errors import (
    ConfigError,
    DamagedError,
    FormatError,
    Gpt4ImageError,
    StoreError,
    first_line,
    install_command,
)
from gpt4image.base.files import UNREADABLE, read_json, read_json_lines, read_parquet
from gpt4image.base.outcome import Skipped
from gpt4image.base.visible import in_one_line
from gpt4image.config import DoctorConfig
from gpt4image.config.results import DoctorResult

EXTRAS = {
    "demo": "the weights and the pictograms: demo, --data openmoji",
    "hf": "Hugging Face datasets: --data hf:",
    "heic": "pictures of phones: HEIC and HEIF files",
    "video": "video files: --data clips:",
    "api": "describers openai:, anthropic:, gemini:, ollama:; --batch; prices",
    "clip": "text encoders open_clip:",
    "review": "the page of gpt4image review",
    "onnx": "export --format onnx, predict with such a file",
    "tensorboard": "--track tensorboard",
    "wandb": "--track wandb",
    "mlflow": "--track mlflow",
    "trackio": "--track trackio",
    "ray": "--engine ray",
}
ENVIRONMENT = (
    *("OPENAI_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "OLLAMA_API_KEY"),
    *("HF_TOKEN", "HF_HOME", "HF_HUB_OFFLINE", "RAY_ADDRESS", "CXX"),
)


def doctor(config: DoctorConfig) -> DoctorResult:
    """Look at this machine, or at what a stage wrote, and change nothing; values of the environment are not shown.

    Raises ConfigError: no stage wrote anything at the path that is given.
    """
    if config.path is not None:
        files = check(config.path)
        return DoctorResult(
            path=config.path,
            files=len(files),
            damaged=sum(file.state == "damaged" for file in files),
            checked=[{"file": str(file.path), "state": file.state} for file in files],
            text="\n".join(f"{in_one_line(str(file.path))}: {file.state}" for file in files),
            skipped=tuple(Skipped(name=str(file.path), reason=file.reason) for file in files if file.reason),
        )
    machine, others = _machine(), plugins.states()
    packages = {name: _version(name) for name in _required()}
    missing = {extra: [name for name in _required(extra) if _version(name) is None] for extra in EXTRAS}
    environment = {name: "set" if os.environ.get(name) else "not set" for name in ENVIRONMENT}
    extras = {
        name: f"{brings} -- {f'missing: {install_command(name)}' if missing[name] else 'installed'}"
        for name, brings in EXTRAS.items()
    }
    sections = {
        "machine": machine,
        "packages": {name: version or "MISSING: install gpt4image again" for name, version in packages.items()},
        "extras": extras,
        "environment": environment,
        "parts of other packages": others,
    }
    return DoctorResult(
        machine=machine,
        packages=packages,
        extras={name: {"brings": EXTRAS[name], "missing": found} for name, found in missing.items()},
        environment=environment,
        plugins=others,
        text="\n\n".join(
            "\n".join([title, *(f"  {name:{max(map(len, rows)) + 2}}{value}" for name, value in rows.items())])
            for title, rows in sections.items()
            if rows
        ),
    )


def _machine() -> dict[str, Any]:
    import torch

    from gpt4image.data.pixels import available_cores
    from gpt4image.parallel.devices import choose_device, suited_precision

    device = choose_device("auto")
    facts: dict[str, Any] = {"python": platform.python_version(), "cpu": runs.cpu_name(), "cores": available_cores()}
    for number in range(torch.cuda.device_count()):
        known = torch.cuda.get_device_properties(number)
        facts[f"cuda:{number}"] = f"{known.name}, {known.total_memory / 2**30:.0f} GiB"
    return facts | {"device": str(device), "precision": suited_precision(device.type)}


def _required(extra: str | None = None) -> list[str]:
    """Return the packages that gpt4image always needs, or those that an extra adds, as its metadata says."""
    found: list[str] = []
    for line in metadata.requires("gpt4image") or []:
        package, _, condition = line.partition(";")
        name = re.match(r"[\w.-]+", package.strip())
        of = re.search(r"extra == ['\"]([\w-]+)['\"]", condition)
        if name and (of[1] if of else None) == extra:
            found.append(name[0])
    return found


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


State = Literal["whole", "of another format", "damaged"]
INDEX, CARD = "index.json", "README.md"
TASK = "gpt4image_task"
OF_RUN = {runs.CONFIG, runs.RUN, runs.ENVIRONMENT, runs.TEXT_SPACE, runs.DOUBTFUL}
EXTRA_RECORDS = {"examples.json", "doubtful-labels.json", "descriptions.json"}
RECORDS = OF_RUN | EXTRA_RECORDS | {TABLE, INDEX, COMPARISON, "plan.json", STAGES}
FOLDERS = (runs.CONFIG, COMPARISON, STAGES, TABLE, INDEX)
"""Files of which one lies in every folder of records: others have an examples.json too."""
MODELS = (".onnx", ".pt2")


class Checked(NamedTuple):
    """One file that was checked; ``reason`` says what is wrong with a damaged one, and what makes it again."""

    path: Path
    state: State
    reason: str = ""


Verify = Callable[[], object]
"""Compares a file to the checksum that another one keeps of it. Raises DamagedError."""


def check(path: Path) -> list[Checked]:
    """Check a file, or all files in a folder that a stage wrote. Raises ConfigError: no stage wrote anything there."""
    if not path.exists():
        raise ConfigError(f"{path} does not exist; give a file or folder that gpt4image wrote.")
    card = path.parent / f"{path.name}.md"
    folders, found = {path.parent}, {path, *([card] if path.suffix in MODELS and card.is_file() else [])}
    if path.is_dir():
        folders = {Path(place) for place, _, _ in os.walk(path)}
        found = {Path(place) / name for place, _, names in os.walk(path) for name in names}
    listed: dict[Path, Verify] = {}
    for folder in folders:
        with contextlib.suppress(OSError):  # it vanished
            listed |= dict(_listed(folder))
    if path.is_dir():
        found = {file for file in found if file.is_file()} | {file for file in listed if not file.exists()}
    checked = [one for file in sorted(found) if (one := _check(file, listed.get(file))) is not None]
    if not checked:
        raise ConfigError(f"{path} holds nothing that gpt4image wrote: give a store, a run or another file of a stage.")
    return checked


def _listed(folder: Path) -> Iterator[tuple[Path, Verify]]:
    """Yield the files that the records and model cards of a folder keep checksums of."""
    for path in sorted(folder.glob("*.json")):
        with contextlib.suppress(DamagedError, FormatError, OSError):  # named where the record itself is checked
            record = read_json(path)
            if isinstance(record, dict) and FILES in record and SEAL in path.read_text(encoding="utf-8"):
                for name in recorded_files(record):
                    yield folder / name, partial(require_recorded, folder, name, record, largest=math.inf)
    for path in sorted(folder.glob("*.md")):
        with contextlib.suppress(OSError):
            try:
                known = card_checksums(path.read_text(encoding="utf-8"))
                if not known and _is_card(path):
                    raise ValueError("the checksums of the model are missing")
            except ValueError as error:
                yield path, partial(_require, path, "", str(error))
                continue
            yield from ((folder / name, partial(_require, folder / name, digest)) for name, digest in known.items())
            yield from [(path, partial(_require, path))] if known else []


def _is_card(path: Path) -> bool:
    if path.name == CARD and (path.parent / runs.CONFIG).is_file():
        with contextlib.suppress(DamagedError):
            return TASK in read_json(path.parent / runs.CONFIG)
    return path.with_suffix("").suffix in MODELS and path.with_suffix("").is_file()


def _require(path: Path, digest: str = "", damage: str = "") -> None:
    if not path.is_file():
        raise DamagedError(f"{path} is missing. {MEND}")
    if damage or (digest and file_digest(path) != digest):
        raise DamagedError(damaged(path, damage or "its content does not match its checksum"))


def _check(path: Path, verify: Verify | None) -> Checked | None:
    """Check one file, also by what lists it; None if no stage wrote it."""
    try:
        if verify is not None:
            verify()
        is_own = _is_own(path)
    except FormatError as error:
        return Checked(path, "of another format", str(error))
    except Gpt4ImageError as error:
        again = "" if isinstance(error, (DamagedError, StoreError)) else f" {MEND}"
        return Checked(path, "damaged", f"{error}{again}")
    except OSError as error:  # another's file: it vanished, is no file any more, or may not be read
        return None if verify is None else Checked(path, "damaged", f"{path} cannot be read: {error.strerror}. {MEND}")
    return Checked(path, "whole") if is_own or verify else None


def _is_own(path: Path) -> bool:
    """Read a file; return whether a stage wrote it."""
    if not path.is_file():  # a pipe or a device may never end
        return False
    beside = {name for name in FOLDERS if (path.parent / name).is_file()}
    if path.suffix == ".json":
        is_evaluation = path.name.startswith("evaluation-") and bool(beside)
        is_record = is_evaluation or (path.name in RECORDS and bool(beside))
        if is_own := is_record or SEAL in path.read_text(encoding="utf-8", errors="replace"):
            (runs.read_evaluation if is_evaluation else read_json)(path)
        return is_own
    if path.name == runs.METRICS:
        read_json_lines(path)
        return True
    if path.suffix == ".safetensors" and (path.name == runs.CHECKPOINT or runs.CONFIG in beside):
        from gpt4image.models.weights import load_tensors

        load_tensors(path)
        return True
    if path.suffix == ".parquet":
        return _parquet(path)
    return path.suffix not in (".safetensors", ".npy") and _store(path)


def _parquet(path: Path) -> bool:
    if holds_boxes(path):
        BoxLabels.load(path)
        return True
    is_targets = TARGETS.encode() in (read_parquet(path).schema.metadata or {})
    if is_targets:
        Targets.load(path)
    return is_targets or path.name.startswith("predictions-")


def _store(path: Path) -> bool:
    """Check a description store; False where a file is none and was none: a writer leaves its lock beside it."""
    with path.open("rb") as file:
        header = file.read(72)
    is_sound = header.startswith(b"SQLite format 3\0") and header[68:] == APPLICATION_ID.to_bytes(4, "big")
    if not is_sound and not path.with_name(f"{path.name}.lock").is_file():
        return False
    if not path.stat().st_size:
        raise StoreError(f"{path} is empty. {STORE_MEND}")
    try:
        with contextlib.closing(connect_reader(path)) as connection:
            References(connection).require_whole(path)
    except sqlite3.OperationalError as error:
        raise OSError(None, str(error), str(path)) from error  # in use by another, or gone: not damaged
    except (sqlite3.DatabaseError, *UNREADABLE) as error:
        raise StoreError(f"{path} is damaged: {first_line(error)}. {STORE_MEND}") from None
    return True
