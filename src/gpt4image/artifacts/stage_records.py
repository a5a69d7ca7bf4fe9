"""Stages of distill that are done in a folder, of what they were made, and their results: one JSON file."""

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from gpt4image.base.files import damaged, read_json, write_json
from gpt4image.base.outcome import Outcome
from gpt4image.config import results

RECORD = "distill.json"


def changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the names of ``now`` whose value was another."""
    return [name for name in now if _plain(before.get(name)) != _plain(now[name])]


def _plain(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


class _Stage(BaseModel):
    """A stage that was begun ``of`` something; with a ``key`` it is finished, with a ``result``."""

    of: dict[str, Any]
    key: dict[str, Any] | None = None
    result: dict[str, Any] = {}


class _Record(BaseModel):
    options: dict[str, Any]
    stages: dict[str, _Stage]


class StageRecords:
    """The record of a folder; each change is on disk when its function returns."""

    def __init__(self, folder: Path) -> None:
        """Read the record, if there is one. Raises RunError: it is damaged."""
        self._path = folder / RECORD
        self._record = _Record(options={}, stages={})
        if self._path.is_file():
            try:
                self._record = _Record.model_validate(read_json(self._path))
            except ValidationError:
                raise damaged(self._path, "it does not hold what distill writes") from None

    @property
    def options(self) -> Mapping[str, Any]:
        """The options of the last run; empty before the first one."""
        return self._record.options

    def begun(self, stage: str) -> dict[str, Any] | None:
        """Return of what a stage was made or begun to be made; None where it was never begun."""
        return self._record.stages[stage].of if stage in self._record.stages else None

    def is_finished(self, stage: str) -> bool:
        """Return whether a stage was finished since it was begun last."""
        return stage in self._record.stages and self._record.stages[stage].key is not None

    def finished(self, stage: str, key: Mapping[str, Any]) -> Outcome | None:
        """Return what came of a stage that was finished with the same ``key``; None where it was not."""
        found = self._record.stages.get(stage)
        if found is None or found.key is None or changed(found.key, key):
            return None
        kind: type[Outcome] = getattr(results, f"{stage.capitalize()}Result")
        return TypeAdapter(kind).validate_python(found.result)

    def write_options(self, options: Mapping[str, Any]) -> None:
        """Note the options of this run."""
        self._record.options = dict(options)
        self._write()

    def begin(self, stage: str, of: Mapping[str, Any]) -> None:
        """Note that a stage begins, and of what."""
        self._record.stages[stage] = _Stage(of=dict(of))
        self._write()

    def finish(self, stage: str, key: Mapping[str, Any], outcome: Outcome) -> None:
        """Note that a stage is finished."""
        of = self._record.stages[stage].of
        facts = {item.name: getattr(outcome, item.name) for item in fields(outcome) if item.name != "read_rows"}
        self._record.stages[stage] = _Stage(of=of, key=dict(key), result=facts)
        self._write()

    def _write(self) -> None:
        write_json(self._path, self._record.model_dump(mode="json", exclude_unset=True))
