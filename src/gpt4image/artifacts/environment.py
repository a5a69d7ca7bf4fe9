"""Where something was computed: versions, machine, commit and command."""

import contextlib
import functools
import os
import platform
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from gpt4image.base.secrets import hidden

PACKAGE = Path(__file__).resolve().parents[1]


def environment(**facts: Any) -> dict[str, Any]:
    """Return versions, machine, commit and command, plus ``facts`` (device, precision, ...)."""
    versions = {name: metadata.version(name) for name in ("gpt4image", "torch", "torchvision", "timm", "numpy")}
    return {
        "python": platform.python_version(),
        **versions,
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        **_commit(),
        "command": command(),
        **facts,
    }


def command() -> str:
    """Return the command line of this process without its secrets; empty if it is another program's."""
    program = Path(sys.argv[0])
    ours = program.name == "gpt4image" or program == PACKAGE / "__main__.py"
    return shlex.join(["gpt4image", *map(hidden, sys.argv[1:])]) if ours else ""


@functools.cache
def cpu_name() -> str:
    """Return the processor's name and the vector extensions that decide which precision is fast."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    flags = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in fields.get("flags", "").split()]
    return f"{fields.get('model name', platform.machine())} ({', '.join(flags) or 'no vector extensions'})"


@functools.cache
def _commit() -> dict[str, Any]:
    """Return commit and dirty flag of the package's own checkout; both None if it is installed from a wheel."""
    folder = PACKAGE.parents[1]

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=True).stdout

    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        if (folder / ".git").exists():
            return {"commit": git("rev-parse", "HEAD").strip(), "dirty": bool(git("status", "--porcelain").strip())}
    return {"commit": None, "dirty": None}
