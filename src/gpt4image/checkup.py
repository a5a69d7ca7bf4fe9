"""The stage doctor: what is installed, what is missing for which use, and whether what stages wrote is whole."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from gpt4image.base.errors import install_command
from gpt4image.base.outcome import Skipped
from gpt4image.base.visible import in_one_line
from gpt4image.config import DoctorConfig
from gpt4image.config.results import DoctorResult

EXTRAS = {
    "demo": "the weights and the pictograms: demo, --data openmoji",
    "hf": "Hugging Face datasets: --data hf:",
    "heic": "pictures of phones: HEIC and HEIF files",
    "video": "video files: --data clips:",
    "api": "describer openai:, also with --batch; prices",
    "clip": "text encoders open_clip:",
    "tune": "--tune-text lora",
    "review": "the page of gpt4image review",
    "onnx": "export --format onnx, predict with such a file",
    "tensorboard": "--track tensorboard",
    "wandb": "--track wandb",
    "mlflow": "--track mlflow",
    "trackio": "--track trackio",
    "ray": "--engine ray",
}
ENVIRONMENT = ("OPENAI_API_KEY", "OPENAI_BASE_URL", "HF_TOKEN", "HF_HOME", "HF_HUB_OFFLINE", "RAY_ADDRESS", "CXX")


def doctor(config: DoctorConfig) -> DoctorResult:
    """Look at this machine, or at what a stage wrote, and change nothing; values of the environment are not shown.

    Raises:
        ConfigError: no stage wrote anything at the path that is given.
    """
    if config.path is not None:
        return _checked(config.path)
    machine = _machine()
    packages = {name: _version(name) for name in _required()}
    missing = {extra: [name for name in _required(extra) if _version(name) is None] for extra in EXTRAS}
    environment = {name: "set" if os.environ.get(name) else "not set" for name in ENVIRONMENT}
    sections = {
        "machine": machine,
        "packages": {name: version or "MISSING: install gpt4image again" for name, version in packages.items()},
        "extras": {
            name: f"{brings} -- missing: {install_command(name)}" if missing[name] else f"{brings} -- installed"
            for name, brings in EXTRAS.items()
        },
        "environment": environment,
    }
    return DoctorResult(
        machine=machine,
        packages=packages,
        extras={name: {"brings": EXTRAS[name], "missing": found} for name, found in missing.items()},
        environment=environment,
        text="\n\n".join(_table(title, rows) for title, rows in sections.items()),
    )


def _checked(path: Path) -> DoctorResult:
    """Check the files at a path; damaged and newer ones count as skipped items, so that the exit code is 1."""
    from gpt4image.integrity import check

    files = check(path)
    refused = [file for file in files if file.reason]
    return DoctorResult(
        path=path,
        files=len(files),
        damaged=sum(file.state == "damaged" for file in refused),
        checked=[{"file": str(file.path), "state": file.state} for file in files],
        text="\n".join(f"{in_one_line(str(file.path))}: {file.state}" for file in files),
        skipped=tuple(Skipped(name=str(file.path), reason=file.reason) for file in refused),
    )


def _machine() -> dict[str, Any]:
    import torch

    from gpt4image.artifacts.runs import cpu_name
    from gpt4image.data.pixels import available_cores
    from gpt4image.models.compiling import compiler_missing
    from gpt4image.parallel.devices import choose_device, suited_precision

    device = choose_device("auto")
    facts: dict[str, Any] = {"python": platform.python_version(), "cpu": cpu_name(), "cores": available_cores()}
    for number in range(torch.cuda.device_count()):
        known = torch.cuda.get_device_properties(number)
        facts[f"cuda:{number}"] = f"{known.name}, {known.total_memory / 2**30:.0f} GiB"
    return facts | {
        "device": str(device),
        "precision": suited_precision(device.type),
        "compile": compiler_missing(device) or "yes (--compile)",
    }


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


def _table(title: str, rows: Mapping[str, Any]) -> str:
    width = max(map(len, rows)) + 2
    return "\n".join([title, *(f"  {name:{width}}{value}" for name, value in rows.items())])
