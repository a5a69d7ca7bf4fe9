"""The stage doctor: what is installed, what is missing for which use, and whether what stages wrote is whole.

Files are compared to the manifest of their folder; stores and Parquet files have structures of their own.
"""

import contextlib
import os
import platform
import re
import sqlite3
from importlib import metadata
from pathlib import Path
from typing import Any

from gpt4image.artifacts.comparisons import COMPARISON
from gpt4image.artifacts.environment import cpu_name
from gpt4image.artifacts.runs import CONFIG
from gpt4image.artifacts.stage_records import RECORD
from gpt4image.artifacts.store import MEND, connect_reader, is_store, require_sound
from gpt4image.base import plugins
from gpt4image.base.errors import ConfigError, Gpt4ImageError, install_command
from gpt4image.base.files import read_json, read_parquet
from gpt4image.base.manifest import MANIFEST, faults
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
        found = check(config.path)
        states = {file: "damaged" if fault else "whole" for file, fault in found.items()}
        return DoctorResult(
            path=config.path,
            files=len(found),
            damaged=sum(map(bool, found.values())),
            checked=[{"file": str(file), "state": state} for file, state in states.items()],
            text="\n".join(f"{in_one_line(str(file))}: {state}" for file, state in states.items()),
            skipped=tuple(Skipped(name=str(file), reason=fault) for file, fault in found.items() if fault),
        )
    missing = [extra for extra in EXTRAS if any(_version(name) is None for name in _required(extra))]
    sections: dict[str, Any] = {
        "machine": _machine(),
        "packages": {name: _version(name) or "MISSING: install gpt4image again" for name in _required()},
        "extras": {
            name: f"{brings} -- {f'missing: {install_command(name)}' if name in missing else 'installed'}"
            for name, brings in EXTRAS.items()
        },
        "environment": {name: "set" if os.environ.get(name) else "not set" for name in ENVIRONMENT},
        "plugins": plugins.states(),
    }
    shown = (
        "\n".join([title, *(f"  {name:{max(map(len, rows)) + 2}}{value}" for name, value in rows.items())])
        for title, rows in sections.items()
        if rows
    )
    return DoctorResult(**sections, text="\n\n".join(shown))


def _machine() -> dict[str, Any]:
    import torch

    from gpt4image.data.pixels import available_cores
    from gpt4image.parallel.devices import choose_device, suited_precision

    device = choose_device("auto")
    facts: dict[str, Any] = {"python": platform.python_version(), "cpu": cpu_name(), "cores": available_cores()}
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


def check(path: Path) -> dict[Path, str]:
    """Return what is wrong, or nothing, with each file at or below a path that a stage wrote. Raises ConfigError."""
    if not path.exists():
        raise ConfigError(f"{path} does not exist; give a file or folder that gpt4image wrote.")
    below = path.rglob("*") if path.is_dir() else (path,)
    files = sorted(file for file in below if file.is_file())
    manifests = [file for file in (files if path.is_dir() else path.parent.iterdir()) if file.name == MANIFEST]
    found: dict[Path, str] = {}
    for manifest in manifests:
        try:
            found |= {manifest: "", **dict(faults(manifest))}
        except Gpt4ImageError as error:
            found[manifest] = str(error)
    for file in files:
        if file not in found and (fault := _fault(file)) is not None:
            found[file] = fault
    found = {file: fault and f"{file}: {fault}" for file, fault in found.items() if path in (file, *file.parents)}
    if not found:
        raise ConfigError(f"{path} holds nothing that gpt4image wrote: give a store, a run or another file of a stage.")
    return found


def _fault(path: Path) -> str | None:
    """Return what is wrong with a file that no manifest lists, or nothing; None of one that no stage wrote."""
    try:
        if path.suffix == ".parquet":
            read_parquet(path)
        elif path.suffix == ".json" and (path.name in (COMPARISON, RECORD) or path.with_name(CONFIG).is_file()):
            read_json(path)
        elif is_store(path):
            with contextlib.closing(connect_reader(path)) as connection:
                require_sound(connection, path)
        else:
            return None
    except sqlite3.DatabaseError as error:
        return f"it is damaged ({error}). {MEND}"
    except (Gpt4ImageError, OSError) as error:
        return str(error)
    return ""
