"""Results on record: rows of docs/research/records/*.csv, and the numbers of pages that must be theirs.

    python docs/scripts/records.py TABLE NAME comparison.json    adds a comparison to a table

A row is a number with its interval: record, part (one comparison of several) and cell. A cell is an arm ("asked"), a
paired difference ("fused - asked") or another fact. A mark in a page names a row, and its number is renewed from it:
`84.8 %<!-- clothes/demo: no label: asked -->`; with ` interval` behind the cell it is the 95 % interval.
"""

from __future__ import annotations

import csv
import json
import re
import sys
from dataclasses import astuple, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from gpt4image.pages.numbers import percent, points, points_interval, signed

FOLDER = Path(__file__).resolve().parents[1] / "research" / "records"
COMPARISONS = FOLDER / "comparisons.csv"
OTHERS = ("comparisons.csv", "scale.csv", "teacher.csv", "clothes-pictures.csv")
NUMBER = r"[+−]?\d[\d,]*(?:\.\d+)?"
MARKED = re.compile(rf"({NUMBER}(?: to {NUMBER})?)( %| points)?<!-- ([\w/.-]+): (?:([^:>]+): )?([^:>]+?) -->")
MARK = re.compile(r"<!-- [\w/.-]+: [^>]+ -->")
CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
GENERATED = re.compile(r"^<!-- ([\w-]+) -->$.*?^<!-- /\1 -->$", re.MULTILINE | re.DOTALL)
FIGURES = re.compile(r"(?<![\d.])\d+\.\d %|(?:[+−]\d+\.\d|\b0\.0) \([+−\d. to]+\)")
"""Means, and differences with their interval, as tables of results state them."""
MEASURED = re.compile(r"\d\.\d(?: %| points)")


@dataclass(frozen=True)
class Row:
    """One number on record, with its interval over seeds and images, or over seeds; empty where there is none."""

    record: str
    part: str
    cell: str
    seeds: str
    value: str
    low: str = ""
    high: str = ""
    p: str = ""
    low_of_seeds: str = ""
    high_of_seeds: str = ""
    p_of_seeds: str = ""
    per_seed: str = ""

    @property
    def mean(self) -> float:
        """The mean over seeds, or the difference."""
        return float(self.value)

    @property
    def interval(self) -> tuple[float, float]:
        """The interval over seeds and images, where it is known."""
        low, high = (self.low, self.high) if self.low else (self.low_of_seeds, self.high_of_seeds)
        return float(low), float(high)


def table(name: str) -> list[dict[str, str]]:
    """Return the rows of a table as they are."""
    with (FOLDER / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@cache
def rows() -> dict[tuple[str, str, str], Row]:
    """Return all rows by record, part and cell."""
    files = [path.name for path in sorted(FOLDER.glob("*.csv")) if path.name not in OTHERS]
    every = [Row(**row) for name in files for row in table(name)]
    return {(row.record, row.part, row.cell): row for row in every}


def parts(record: str) -> list[dict[str, Any]]:
    """Return the comparisons of a record: part, setup, labels, seeds and command."""
    return [row for row in table(COMPARISONS.name) if row["record"] == record]


def renewed(text: str) -> str:
    """Return a page whose marked numbers are those of the records.

    Raises:
        KeyError: a mark names a row that is not there.
        ValueError: a mark stands behind no number.
    """
    if len(MARKED.findall(text)) != len(MARK.findall(text)):
        raise ValueError(f"one of these marks stands behind no number: {MARK.findall(text)}")
    return MARKED.sub(_renew, text)


def _renew(found: re.Match[str]) -> str:
    shown, unit, record, part, cell = found.groups()
    places = len(shown.split(" to ")[0].partition(".")[2])
    row = rows()[record, part or "", cell.removesuffix(" interval")]
    values = row.interval if cell.endswith(" interval") else (row.mean,)
    is_fact = "/" in cell and unit != " %"  # an amount, not a share
    has_sign = shown[0] in "+−" or " to +" in shown
    numbers = [value if is_fact else 100 * value for value in values]
    figures = " to ".join(signed(each, places) if has_sign or each < 0 else f"{each:,.{places}f}" for each in numbers)
    return f"{figures}{unit or ''}<!-- {found[0].partition('<!-- ')[2]}"


def without_evidence(text: str) -> list[str]:
    """Return the blocks of a guide that state a measured number, and have neither a mark nor a link to its evidence."""
    blocks = re.split(r"\n\n|\n(?=(?:- |\d+\. ))", CODE.sub("", text))
    measured = [block for block in blocks if MEASURED.search(MARKED.sub("", block))]
    return [block for block in measured if not re.search(r"research/|arxiv\.org", block)]


def false_rows(text: str) -> list[str]:
    """Return the rows of tables with a mean or a difference that the one record they name does not have."""
    written = re.findall(r"^\|.*`.*$", GENERATED.sub("", MARKED.sub("", text)), re.MULTILINE)
    return [row for row in written if not set(FIGURES.findall(row)) <= _figures(row)]


def _figures(written: str) -> set[str]:
    known = {record for record, *_ in rows()}
    names = [name for name in re.findall(r"`([\w/-]+)`", written) if name in known]
    if len(names) != 1:
        return set(FIGURES.findall(written))
    figures: set[str] = set()
    for row in (row for row in rows().values() if row.record == names[0]):
        figures.add(percent(row.mean))
        for low, high in ((row.low, row.high), (row.low_of_seeds, row.high_of_seeds)):
            if low and " - " in row.cell:
                ends = (float(low), float(high))
                figures.add(f"{points(row.mean)} ({points_interval(ends)})")
                figures.add(f"{points(-row.mean)} ({points_interval((-ends[1], -ends[0]))})")
    return figures


def rows_of(name: str, record: dict[str, Any]) -> list[Row]:
    """Return the rows of the content of a comparison.json."""
    found: list[Row] = []
    for part, comparison in record.get("comparisons", {"": record}).items():
        for arm, facts in comparison["arms"].items():
            seeds, per_seed = str(len(facts["test"])), " ".join(map(_short, facts["test"]))
            ends = map(_short, facts["ci95"] or ("", ""))
            found.append(Row(name, part, arm, seeds, _short(facts["mean"]), *ends, per_seed=per_seed))
        for pair in comparison["pairs"]:
            cell, images = f"{pair['arm']} - {pair['against']}", pair.get("other_images") or {}
            numbers = (pair["difference"], *(images.get("ci95") or ("", "")), images.get("p"))
            of_seeds = (*(pair["ci95"] or ("", "")), pair["p"])
            found.append(Row(name, part, cell, str(pair["n"]), *map(_short, numbers + of_seeds)))
    return found


def _short(value: Any) -> str:
    if value in (None, ""):
        return ""
    return f"{value:.6g}" if abs(value) < 1e-3 else f"{round(value, 5)}"


def add(file: str, name: str, source: str) -> None:
    """Put the rows of a comparison.json into a table, in place of those of this name."""
    others = [Row(**row) for row in table(file) if row["record"] != name] if (FOLDER / file).exists() else []
    made = rows_of(name, json.loads(Path(source).read_text(encoding="utf-8")))
    with (FOLDER / file).open("w", encoding="utf-8", newline="") as opened:
        writer = csv.writer(opened, lineterminator="\n")
        writer.writerow([field.name for field in fields(Row)])
        writer.writerows(map(astuple, sorted(others + made, key=lambda row: row.record)))


if __name__ == "__main__":
    add(f"{sys.argv[1]}.csv", *sys.argv[2:])
