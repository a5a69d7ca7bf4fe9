"""How often the intervals of `gpt4image audit` hold, and how wide they are, on real answers and simulated models.

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
from gpt4image.labelling.looks import drawn, share_right, strata_of
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


def main(draws: int) -> None:
    for looks in (20, 50, 100):
        cells: list[tuple[float, float, float]] = []
        for name, right, proxy in settings():
            strata = strata_of(proxy, looks)
            found, plain = [], []
            for seed in range(draws):
                rows, others = drawn(strata, seed)[:looks], np.random.default_rng(seed).permutation(len(right))[:looks]
                found.append(share_right(strata, rows, right[rows]))
                plain.append(share_right(np.zeros_like(strata), others, right[others]))
            covered = float(np.mean([share.low <= right.mean() <= share.high for share in found]))
            widths = [float(np.mean([share.high - share.low for share in each]) / 2) for each in (found, plain)]
            cells.append((covered, *widths))
            print(f"{looks:3} looks  {name:40} right {right.mean():.3f}  covered {covered:.3f}  ±{widths[0]:.3f}  "
                  f"at random ±{widths[1]:.3f}", flush=True)  # fmt: skip
        least, mean = min(cell[0] for cell in cells), np.mean(cells, axis=0)
        width = f"±{mean[1]:.3f}, at random ±{mean[2]:.3f}"
        print(f"{looks:3} looks: coverage at least {least:.3f}, mean {mean[0]:.3f}; {width}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
