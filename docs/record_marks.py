"""Numbers in sentences, renewed from the records that the comments after them name.

A mark is `84.8 %<!-- clothes/demo: no label: asked -->`: record, comparison (if the record has several) and cell.

    asked                      mean of an arm; `asked interval` its 95 % interval
    fused - asked              paired difference of two arms in points; `fused - asked interval` its interval
    demo/live_cost_usd         any value of the record, by its path; times 100 before " %"
    weak lite0 ~pictures: accuracy    mean over the cells of a benchmark whose names begin so
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

from gpt4image.pages.numbers import percent, points, points_interval, signed

FOLDER = Path(__file__).parent / "research" / "records"
NUMBER = r"[+−]?\d[\d,]*(?:\.\d+)?"
MARKED = re.compile(rf"({NUMBER}(?: to {NUMBER})?)( %| points)?<!-- ([\w/.-]+): (?:([^:>]+): )?([^:>]+?) -->")
MARK = re.compile(r"<!-- [\w/.-]+: [^>]+ -->")
CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
GENERATED = re.compile(r"^<!-- ([\w-]+) -->$.*?^<!-- /\1 -->$", re.MULTILINE | re.DOTALL)
FIGURES = re.compile(r"(?<![\d.])\d+\.\d %|(?:[+−]\d+\.\d|\b0\.0) \([+−\d. to]+\)")
"""Means, and differences with their interval, as tables of results state them."""
MEASURED = re.compile(r"\d\.\d(?: %| points)")


def renewed(text: str) -> str:
    """Return a page whose marked numbers are those of the records.

    Raises:
        KeyError: a mark names a cell that is not there.
        ValueError: a mark stands behind no number.
    """
    if len(MARKED.findall(text)) != len(MARK.findall(text)):
        raise ValueError(f"one of these marks stands behind no number: {MARK.findall(text)}")
    return MARKED.sub(_renew, text)


def without_evidence(text: str) -> list[str]:
    """Return the blocks of a guide that state a measured number, and have neither a mark nor a link to its evidence."""
    blocks = re.split(r"\n\n|\n(?=(?:- |\d+\. ))", CODE.sub("", text))
    return [
        block
        for block in blocks
        if MEASURED.search(MARKED.sub("", block)) and not re.search(r"research/|arxiv\.org", block)
    ]


def false_rows(text: str) -> list[str]:
    """Return the rows of tables with a mean or a difference that the record they name in backticks does not have.

    Parts that are generated, and rows that pool several records, are left out.
    """
    rows = re.findall(r"^\|.*`.*$", GENERATED.sub("", MARKED.sub("", text)), re.MULTILINE)
    return [row for row in rows if not set(FIGURES.findall(row)) <= _figures(row)]


def _figures(row: str) -> set[str]:
    """Return the means and differences of the record that a row names; all that it shows, if it names not one."""
    names = [name for name in re.findall(r"`([\w/-]+)`", row) if (FOLDER / f"{name}.json").is_file()]
    if len(names) != 1:
        return set(FIGURES.findall(row))
    figures: set[str] = set()
    for comparison in _record(names[0]).get("comparisons", {"": _record(names[0])}).values():
        arms = comparison["arms"].values()
        figures |= {percent(arm["mean"]) for arm in arms if "mean" in arm}
        for pair in comparison["pairs"]:
            for interval in filter(None, [(pair.get("other_images") or {}).get("ci95"), pair["ci95"]]):
                low, high = interval
                figures.add(f"{points(pair['difference'])} ({points_interval((low, high))})")
                figures.add(f"{points(-pair['difference'])} ({points_interval((-high, -low))})")
    return figures


@cache
def _record(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def _renew(found: re.Match[str]) -> str:
    shown, unit, name, part, cell = found.groups()
    places = len(shown.split(" to ")[0].partition(".")[2])
    values = _values(_record(name), part, cell, is_share=unit == " %")
    has_sign = shown[0] in "+−" or " to +" in shown
    figures = " to ".join(signed(each, places) if has_sign or each < 0 else f"{each:,.{places}f}" for each in values)
    return f"{figures}{unit or ''}<!-- {found[0].partition('<!-- ')[2]}"


def _values(record: dict[str, Any], part: str | None, cell: str, *, is_share: bool) -> list[float]:
    """Return the number that a mark names, or both ends of its interval."""
    if "cells" in record:
        named = (part or "").split()
        return [100 * fmean(row[cell] for row in record["cells"] if [*map(str, row["cell"])][: len(named)] == named)]
    comparison = record["comparisons"][part] if part else record
    cell, wants_interval = cell.removesuffix(" interval"), cell.endswith(" interval")
    if " - " in cell:
        pair = {f"{each['arm']} - {each['against']}": each for each in comparison["pairs"]}[cell]
        interval = (pair.get("other_images") or pair)["ci95"]
        return [100 * value for value in interval] if wants_interval else [100 * pair["difference"]]
    if cell in comparison["arms"]:
        found = comparison["arms"][cell]
        if isinstance(found, list):  # one entry per seed
            return [100 * fmean(each["accuracy"] for each in found)]
        return [100 * value for value in (found["ci95"] if wants_interval else [found["mean"]])]
    value: Any = comparison
    for key in cell.split("/"):
        value = value[key]
    return [100 * value if is_share else value]
