"""How often intervals and promises by the looks of `gpt4image audit` hold, on real answers and simulated models.

    python benchmarks/audit.py [DRAWS]

A model is right with a given chance, and its errors are of classes that the right one is confused with. Describers: the
real one; one with 20 % of its answers replaced at random that is less confident of these; one that always says 99 %.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from gpt4image.base.files import read_json_lines
from gpt4image.labelling.looks import promise, share_right
from text_labels import DATA

Ints = NDArray[np.int64]


def answers(name: str) -> tuple[Ints, Ints, Ints, NDArray[np.float64], int]:
    """Return true class, answer, second answer and confidence of each image of a set, and the number of classes."""
    rows = read_json_lines(DATA / name / ("answers.jsonl" if name == "clothes" else "answers-class.jsonl"))
    label = {path.name: path.parent.name for path in (DATA / name / "train").glob("*/*")}
    if name == "openmoji":
        lines = (DATA / name / "labels.csv").read_text(encoding="utf-8").splitlines()
        label = dict(line.split(",") for line in lines)
    of = {row["key"]: label.get(row["key"].split("/")[-1], row["key"].split("/")[0]) for row in rows}
    number = {name: k for k, name in enumerate(sorted(set(of.values())))}
    truth = np.array([number[of[row["key"]]] for row in rows])
    first, second = (np.array([number.get(row[part], -1) for row in rows]) for part in ("class", "second"))
    return truth, first, second, np.array([float(row["confidence"]) for row in rows]), len(number)


def settings() -> Iterator[tuple[str, NDArray[np.bool_], NDArray[np.float64]]]:
    """Yield a name, which images are right, and their proxy."""
    rng = np.random.default_rng(0)
    for name in ("clothes", "cifar10", "openmoji"):
        truth, first, second, stated, k = answers(name)
        for describer in ("real", "weaker", "over-confident"):
            bad = (rng.random(len(truth)) < 0.2) & (describer != "real")
            said = np.where(bad, rng.integers(0, k, len(truth)), first)
            sure = {"real": stated, "weaker": np.where(bad, np.clip(stated - 0.3, 0.05, 1), stated)}
            sure = sure.get(describer, np.full(len(truth), 0.99))
            yield f"{name}, {describer}, answers", said == truth, sure
            for chance in (0.6, 0.85, 0.95):
                confused = rng.integers(0, k, (k, 3))[truth, rng.integers(0, 3, len(truth))]
                hard = rng.random(len(truth))
                model = np.where(rng.random(len(truth)) < np.clip(chance + 0.7 * (0.5 - hard), 0, 1), truth, confused)
                others = np.where(model == second, 0.6, 0.4 / (k - 2)) * (1 - sure)
                yield f"{name}, {describer}, model of {chance}", model == truth, np.where(model == said, sure, others)


def intervals(draws: int) -> None:
    """Print the coverage and the half width of the interval of each setting, and those without a proxy."""
    for looks in (20, 30, 50, 100, 200):
        cells: list[tuple[float, float, float]] = []
        for name, right, proxy in settings():
            nothing, rng = np.ones(len(right)), np.random.default_rng(0)
            samples = [rng.permutation(len(right))[:looks] for _ in range(draws)]
            found, plain = ([share_right(one, rows, right[rows]) for rows in samples] for one in (proxy, nothing))
            covered = float(np.mean([share.low <= right.mean() <= share.high for share in found]))
            widths = [float(np.mean([share.high - share.low for share in each]) / 2) for each in (found, plain)]
            cells.append((covered, *widths))
            print(f"{looks:3} looks  {name:40} right {right.mean():.3f}  covered {covered:.3f}  ±{widths[0]:.3f}  "
                  f"at random ±{widths[1]:.3f}", flush=True)  # fmt: skip
        least, mean = min(cell[0] for cell in cells), np.mean(cells, axis=0)
        width = f"±{mean[1]:.3f}, at random ±{mean[2]:.3f}"
        print(f"{looks:3} looks: coverage at least {least:.3f}, mean {mean[0]:.3f}; {width}", flush=True)


def promises(draws: int) -> None:
    """Print how often a promise about answers is kept, and how many images it is about."""
    for name, right, proxy in settings():
        if not name.endswith("answers"):
            continue
        order = np.argsort(-proxy, kind="stable")
        for max_error, looks in ((0.02, 200), (0.02, 400), (0.02, 800), (0.05, 100), (0.05, 200), (0.1, 100)):
            rng, sizes, kept = np.random.default_rng(0), [], []
            for _ in range(draws):
                rows = rng.permutation(len(right))[:looks]
                size = promise(proxy, rows, ~right[rows], max_error).images
                sizes.append(size / len(right))
                kept.append((~right[order[:size]]).sum() <= max_error * size)
            best = np.flatnonzero(np.cumsum(~right[order]) <= max_error * np.arange(1, len(right) + 1))
            print(f"{name:32} at most {max_error:.0%} wrong, {looks:3} looks: kept {np.mean(kept):.3f}, images "
                  f"{np.mean(sizes):.3f}, some {np.mean(np.array(sizes) > 0):.3f}; with all labels "
                  f"{(best[-1] + 1) / len(right) if len(best) else 0:.3f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    promises(count)
    intervals(count)
