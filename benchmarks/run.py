"""Run the benchmarks, each in a process of its own, and print ratios; see README.md beside this file."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

BENCHMARKS = {
    "startup": "startup:startup",
    "first": "startup:first_step",
    "pipeline": "training:pipeline",
    "alignment": "training:alignment",
    "precision": "training:precision",
    "encoding": "texts:encoding",
    "predicting": "predicting:predicting",
    "table": "texts:table",
    "describing": "describing:throughput",
    "capped": "describing:capped",
    "chaos": "describing:chaos",
    "resuming": "describing:resuming",
    "many": "describing:many",
    "searching": "searching:search",
}
OUT = Path("bench-out")


def run_one(name: str) -> None:
    """Run one benchmark in this process and print its rows as JSON lines."""
    module, function = BENCHMARKS[name].split(":")
    for row in getattr(import_module(module), function)():
        print(json.dumps({"benchmark": name, **row._asdict(), "ratio": row.ratio, "met": row.met}), flush=True)


def run_all(names: list[str]) -> None:
    from gpt4image.artifacts.environment import environment
    from gpt4image.base.files import write_json

    rows = []
    print(f"{'figure':72} {'ours':>12} {'over':>12} {'ratio':>8}  goal")
    for name in names:
        result = subprocess.run([sys.executable, __file__, "--only", name], stdout=subprocess.PIPE, text=True)
        if result.returncode:
            print(f"{name}: failed with exit code {result.returncode}")
        for row in (json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")):
            rows.append(row)
            met = "met" if row["met"] else "MISSED"
            figures = f"{row['ours']:12.4g} {row['limit']:12.4g} {row['ratio']:8.3f}"
            print(f"{row['name']:72} {figures}  {row['goal']} {met} ({row['unit']})")
    write_json(OUT / "results.json", {"environment": environment(), "rows": rows})


if __name__ == "__main__":
    if sys.argv[1:2] == ["--only"]:
        run_one(sys.argv[2])
    else:
        run_all(sys.argv[1:] or list(BENCHMARKS))
