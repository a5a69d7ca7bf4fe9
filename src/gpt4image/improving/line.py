"""The line of models: each improved run names its parent, what was asked, and how it compares to it."""

import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from pydantic import Field

from gpt4image.artifacts import runs
from gpt4image.artifacts.runs import Record, parsed
from gpt4image.artifacts.stage_records import RECORD, StageRecords
from gpt4image.artifacts.store import DescriptionStore, connect_reader, explained
from gpt4image.base.errors import RunError
from gpt4image.base.files import atomic_path, read_json
from gpt4image.base.intervals import Interval
from gpt4image.base.outcome import Row
from gpt4image.config import DistillConfig, HistoryConfig
from gpt4image.config.distilling import ANSWERS, RUN
from gpt4image.config.results import HistoryResult
from gpt4image.pages.numbers import percent, points, points_interval, text_table

IMPROVED = "improved.json"


class Compared(Record):
    """Two models on the same test images: shares that are right before and after, and the paired difference.

    ``by_people`` counts the images whose class a person gave; that of the others is the describer's.
    """

    images: int
    by_people: int
    before: float
    after: float
    difference: float
    ci95: Interval


class Improved(Record):
    """What an improved run came from: its parent, new images, and how it compares on ``old`` and ``new`` ones."""

    parent: Path
    new: str
    fresh: int
    looks: int
    asked: int
    describer: str
    compared: dict[str, Compared] = Field(default_factory=dict)
    against: str = ""
    taken_over: bool


class Parent(NamedTuple):
    """A finished folder of distill or improve: its options, its finished run, and its description store."""

    folder: Path
    options: DistillConfig
    run: Path
    store: Path


def find_parent(folder: Path) -> Parent:
    """Return a folder that distill or improve has finished; its run means the folder. Raises RunError."""
    if not (folder / RECORD).is_file() and (folder.parent / RECORD).is_file() and runs.has_begun(folder):
        folder = folder.parent
    if not folder.exists():
        raise RunError(f"{folder} does not exist; give the --out folder of `gpt4image distill`.")
    if not (folder / RECORD).is_file():
        what = (
            "a run of `train`" if runs.is_finished(folder) else "an exported model" if _is_model(folder) else "no run"
        )
        raise RunError(
            f"{folder} is {what}: which images it learned from, and what was answered about them, is not known there. "
            "Give the folder that `gpt4image distill` made."
        )
    options = DistillConfig.model_validate(DistillConfig.changed(StageRecords(folder).options) | {"out": folder})
    if not runs.is_finished(folder / RUN):
        raise RunError(f"{folder} holds no finished run; finish it with the command that began it.")
    return Parent(folder, options, folder / RUN, folder / ANSWERS)


def _is_model(path: Path) -> bool:
    return path.is_file() or any((path / name).is_file() for name in ("model.onnx", "model.safetensors", "model.pt2"))


def next_folder(folder: Path) -> Path:
    """Return the folder of the next model of a line: ``photos-2`` after ``photos``."""
    found = re.fullmatch(r"(.*?)-(\d+)", folder.name)
    name, number = (found[1], int(found[2])) if found else (folder.name, 1)
    return folder.with_name(f"{name}-{number + 1}")


def copy_store(source: Path, place: Path) -> None:
    """Copy a description store in one step, with the answers in its log; one that is there stays. StoreError."""
    if place.is_file():
        return
    with (
        explained(source),
        atomic_path(place) as temporary,  # named when the log of the source is tidied away
        closing(connect_reader(source)) as reading,
        closing(sqlite3.connect(temporary)) as writing,
    ):
        reading.backup(writing)


def read_improved(folder: Path) -> Improved | None:
    """Return what a run came from; None for a first one. Raises RunError."""
    path = folder / IMPROVED
    return parsed(path, read_json(path), Improved) if path.is_file() else None


def spent(store: Path) -> float | None:
    """Return what all answers of a store have cost, None where it is not known or nothing."""
    if not store.is_file():
        return None
    with DescriptionStore(store) as opened:
        return opened.spent({}).known or None


def history(config: HistoryConfig) -> HistoryResult:
    """Return the models of a line, the first one first. Raises RunError."""
    folder, rows, seen = find_parent(config.run).folder, list[Row](), set[Path]()
    while folder.resolve() not in seen:
        seen.add(folder.resolve())
        improved = read_improved(folder)
        rows.insert(0, _row(folder, improved))
        if improved is None:
            break
        folder = improved.parent
        if not (folder / RECORD).is_file():
            rows.insert(0, {**dict.fromkeys(rows[0]), "model": str(folder), "taken_over": "gone"})
            break
    names = ("model", "new images", "asked", "of whom", "cost", "accuracy", "old", "new", "")
    cells = [[_cell(row, name) for name in names] for row in rows]
    text = text_table("Models, the first one first", [names, *cells])
    return HistoryResult(path=config.run, models=len(rows), text=text, read_rows=lambda: rows)


def _row(folder: Path, improved: Improved | None) -> Row:
    evaluation = runs.load_run(folder / RUN).evaluation if runs.is_finished(folder / RUN) else None
    options = StageRecords(folder).options
    row: Row = {
        "model": str(folder),
        "data": options.get("data") if improved is None else improved.new,
        "new_images": None if improved is None else improved.fresh,
        "asked": None if improved is None else improved.asked + improved.looks,
        "of_whom": options.get("describer"),
        "cost_usd": spent(folder / ANSWERS),
        "accuracy": None if evaluation is None else evaluation.score,
        "accuracy_on": None if evaluation is None else evaluation.labelled,
        "taken_over": "yes" if improved is None or improved.taken_over else "no",
    }
    for name in ("old", "new"):
        found = None if improved is None else improved.compared.get(name)
        row[name] = None if found is None else found.difference
        row[f"{name}_ci95"] = None if found is None else found.ci95
    return row


def _cell(row: Row, name: str) -> str:
    key = {"cost": "cost_usd", "": "taken_over"}.get(name, name.replace(" ", "_"))
    value = row[key]
    if key == "taken_over":
        return {"no": "not taken over", "gone": "is gone"}.get(value, "")
    if value is None:
        return "–"
    if name in ("old", "new"):
        return f"{points(value)} ({points_interval(row[f'{name}_ci95'])})"
    return f"${value:,.2f}" if name == "cost" else percent(value) if name == "accuracy" else str(value)
