"""What makes a damaged file again, by its name and what lies beside it: the command that its error names."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
from pathlib import Path

_MODELS = (".onnx", ".pt2")
_OF_RUNS = ("config.json", "environment.json", "run.json", "metrics.jsonl", "text_space.json", "doubtful.json")


def remedy(path: Path) -> str:
    """Return a sentence that says what makes a file again; for one that no stage wrote, that a copy is needed."""
    folder, place = path.parent, shlex.quote(str(path.parent))
    if split := re.fullmatch(r"(?:evaluation|predictions)-([\w-]+)\.(?:json|parquet)", path.name):
        again = f"`gpt4image evaluate {place} --split {split[1].partition('-')[0]}`"
        return f"Remove {folder / f'evaluation-{split[1]}.json'} and run {again}."
    if path.name in ("examples.json", "doubtful-labels.json", "descriptions.json"):
        what = "evaluation-*.json" if (folder / "config.json").is_file() else "comparison.json"
        again = _command(folder, "compare") if what == "comparison.json" else f"`gpt4image evaluate {place}`"
        return f"Remove {what} and run {again}: it writes this file again, which only the report shows."
    if path.name in ("comparison.json", "plan.json"):
        return f"Remove it and run {_command(folder, 'compare')}: finished runs are kept."
    if path.name == "distill.json":
        return f"Move all but answers.db out of {place} and give the same `gpt4image distill` command: it pays nothing."
    if path.name == "index.json" or (folder / "index.json").is_file():
        return "Delete the folder and give the same `gpt4image search` command."
    if (folder / "embeddings.npy").exists() or path.name == "manifest.json":
        return f"Delete the folder and run `gpt4image encode --store STORE --out {place}`."
    if path.suffix in _MODELS or path.name.endswith(tuple(f"{kind}.md" for kind in _MODELS)) or _is_exported(folder):
        return "Delete the model and its card and run `gpt4image export RUN_DIR` again."
    if path.name in ("checkpoint.safetensors", "metrics.jsonl") and not (folder / "run.json").is_file():
        checkpoint = folder / "checkpoint.safetensors"
        return f"Remove {checkpoint} and run {_command(folder)} with --resume, which trains from its start."
    if path.name in _OF_RUNS or path.suffix == ".safetensors":
        run = folder if (folder / "config.json").is_file() or path.name in _OF_RUNS else folder.parent
        if (run / "config.json").is_file() or path.name in _OF_RUNS:
            return f"Delete the folder of the run and train it again: {_command(run)}."
    if path.suffix == ".parquet":
        return f"Write it again with `gpt4image label --out {shlex.quote(str(path))}`."
    return "Bring back a copy of it, or make again what it belongs to."


def _is_exported(folder: Path) -> bool:
    return (folder / "README.md").is_file() and not (folder / "environment.json").is_file()


def _command(folder: Path, verb: str = "train") -> str:
    """Return the command that a run or comparison recorded; where there is none, its beginning."""
    for name in ("environment.json", "comparison.json"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            known = json.loads((folder / name).read_text(encoding="utf-8"))["command"]
            if isinstance(known, str) and known.startswith("gpt4image ") and known.isprintable():
                return f"`{known}`"
    return f"`gpt4image {verb} ... --out {shlex.quote(str(folder))}`"
