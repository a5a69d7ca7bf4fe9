"""Which build of torch `make` installs: prints options for pip, and says on standard error how much is downloaded.

python .ci/torch_build.py [INDEX]

PyPI's build for Linux holds CUDA and is some gigabytes large. On a machine without an NVIDIA GPU the build for
CPUs does the same, from PyTorch's own index, where that can be reached. `make TORCH_INDEX=` always takes PyPI's build.
"""

from __future__ import annotations

import importlib.util
import platform
import shutil
import sys
import urllib.request

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
LOCKED = "About 300 MB of packages"


def reachable(index: str, seconds: float = 4) -> bool:
    """Return whether an index of packages answers for torch."""
    try:
        with urllib.request.urlopen(f"{index.rstrip('/')}/torch/", timeout=seconds) as answer:
            return answer.status == 200
    except (OSError, ValueError):
        return False


def chosen(index: str, *, installed: bool, gpu: bool, linux: bool) -> tuple[list[str], str]:
    """Return the options for pip, and the sentence about what is downloaded."""
    if installed:
        return [], f"{LOCKED} are downloaded where they are not cached; torch is here already."
    if not linux:
        return [], f"{LOCKED} and torch (about 200 MB) are downloaded where they are not cached."
    if gpu:
        return [], f"{LOCKED} and torch with CUDA (2 to 3 GB) are downloaded where they are not cached."
    if index and reachable(index):
        return ["--extra-index-url", index], f"{LOCKED} and torch for CPUs (about 200 MB) are downloaded."
    why = f"{index} does not answer" if index else "TORCH_INDEX is empty"
    return (
        [],
        f"{LOCKED} and PyPI's build of torch are downloaded where they are not cached (with CUDA 2 to 3 GB: {why}).",
    )


if __name__ == "__main__":
    options, sentence = chosen(
        sys.argv[1] if len(sys.argv) > 1 else CPU_INDEX,
        installed=importlib.util.find_spec("torch") is not None,
        gpu=shutil.which("nvidia-smi") is not None,
        linux=platform.system() == "Linux",
    )
    print(sentence, file=sys.stderr)
    print(*options)
