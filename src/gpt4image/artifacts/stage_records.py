"""Which stages of distill are done in a folder, of what they were made, and what came of them: one JSON file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gpt4image.base.checksums import damaged
from gpt4image.base.errors import RunError
from gpt4image.base.files import read_json, write_json
from gpt4image.base.outcome import Outcome, Skipped
from gpt4image.config.results import (
    CompareResult,
    DescribeResult,
    EncodeResult,
    EvaluateResult,
    ExportResult,
    LabelResult,
    ReportResult,
    TrainResult,
)

RECORD = "distill.json"
RESULTS: Mapping[str, type[Outcome]] = {
    "describe": DescribeResult,
    "encode": EncodeResult,
    "label": LabelResult,
    "train": TrainResult,
    "evaluate": EvaluateResult,
    "export": ExportResult,
    "report": ReportResult,
    "compare": CompareResult,
}
KEPT = ("notes", "metric")
"""Facts that are noted beside those which the command line prints."""


def _is_whole(found: Any) -> bool:
    """Return whether a record has the shape that ``StageRecords`` writes."""
    if not isinstance(found, dict) or not all(isinstance(found.get(name), dict) for name in ("options", "stages")):
        return False
    return all(isinstance(stage, dict) for stage in found["stages"].values())


class StageRecords:
    """The record of a folder; each change is on disk when its function returns."""

    def __init__(self, folder: Path) -> None:
        """Read the record, if there is one. Raises RunError: it is damaged."""
        self._path = folder / RECORD
        self._values: dict[str, Any] = {"options": {}, "stages": {}}
        if self._path.is_file():
            found: Any = read_json(self._path)
            if not _is_whole(found):
                raise RunError(damaged(self._path, "it does not hold what distill writes"))
            self._values |= found

    @property
    def options(self) -> Mapping[str, Any]:
        """The options of the last run; empty before the first one."""
        return self._values["options"]

    def begun(self, stage: str) -> str | None:
        """Return of what a stage was made or begun to be made; None where it was never begun."""
        return self._values["stages"].get(stage, {}).get("of")

    def is_finished(self, stage: str) -> bool:
        """Return whether a stage was finished since it was begun last."""
        return "key" in self._values["stages"].get(stage, {})

    def finished(self, stage: str, key: str) -> Outcome | None:
        """Return what came of a stage that was finished with the same ``key``; None where it was not."""
        found = self._values["stages"].get(stage, {})
        if found.get("key") != key:
            return None
        try:
            return RESULTS[stage].of_facts(
                found["summary"],
                path=None if found["path"] is None else Path(found["path"]),
                counts=found.get("counts", {}),
                text=found["text"],
                skipped=tuple(Skipped(**item) for item in found["set_aside"]),
            )
        except (KeyError, TypeError) as error:
            raise RunError(damaged(self._path, f"what came of {stage} cannot be read ({error})")) from None

    def write_options(self, options: Mapping[str, Any]) -> None:
        """Note the options of this run."""
        self._write(options=dict(options))

    def begin(self, stage: str, of: str) -> None:
        """Note that a stage begins, and of what."""
        self._write(stages=self._values["stages"] | {stage: {"of": of}})

    def finish(self, stage: str, key: str, outcome: Outcome) -> None:
        """Note that a stage is finished."""
        done = {
            "of": self.begun(stage),
            "key": key,
            "path": None if outcome.path is None else str(outcome.path),
            "summary": outcome.summary | {name: facts[name] for name in KEPT if name in (facts := outcome.record)},
            "counts": dict(outcome.counts),
            "text": outcome.text,
            "set_aside": [asdict(item) for item in outcome.skipped],
        }
        self._write(stages=self._values["stages"] | {stage: done})

    def _write(self, **changes: Any) -> None:
        self._values = {**self._values, **changes}
        write_json(self._path, self._values)
