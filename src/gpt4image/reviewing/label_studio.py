"""Tasks of Label Studio: choices with one label per image, as JSON that it exports and imports."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from gpt4image.base.errors import DataError, Gpt4ImageError, first_few
from gpt4image.base.files import parse_json, write_json
from gpt4image.base.outcome import Skipped
from gpt4image.reviewing.session import Card

FROM_NAME, TO_NAME = "label", "image"
FIELDS = (FROM_NAME, "choice")  # of a task in JSON-MIN: the name of the control
MODEL = "gpt4image"
MOST_BYTES = 512 * 1024 * 1024
_LOCAL = "/data/local-files/?d="
_DIGEST = re.compile("[0-9a-f]{64}")
_UPLOAD = re.compile(r"^[0-9a-f]{8}-")  # what Label Studio puts before the name of an uploaded file


def write_tasks(path: Path, cards: Iterable[tuple[Card, str]]) -> int:
    """Write a task for each image: its label as an annotation, what is proposed for it as a prediction.

    Args:
        path: JSON file.
        cards: images, each with where it lies, as the file of labels has it.
    """
    tasks = list[dict[str, Any]]()
    for card, place in cards:
        tasks.append(task := task_of(place, card.key, card.id))
        if card.label:
            task["annotations"] = [{"result": [choices([card.label])], "was_cancelled": False}]
        if card.proposal:
            task["predictions"] = [prediction([choices([card.proposal])], card.share)]
    write_json(path, tasks, checksum=False)  # a file for another program
    return len(tasks)


def task_of(place: str, key: str, digest: str) -> dict[str, Any]:
    """Return a task without labels, of an image that lies at ``place`` on the machine of Label Studio."""
    return {"data": {"image": f"{_LOCAL}{quote(place)}", "key": key, "digest": digest}}


def choices(names: Sequence[str]) -> dict[str, Any]:
    """Return class names as the result of an annotation or a prediction."""
    return {"from_name": FROM_NAME, "to_name": TO_NAME, "type": "choices", "value": {"choices": list(names)}}


def prediction(results: Sequence[Mapping[str, Any]], score: float) -> dict[str, Any]:
    """Return results that a person may accept or correct."""
    return {"result": list(results), "score": score, "model_version": MODEL}


def read_tasks(path: Path, digest_of: Mapping[str, str]) -> tuple[dict[str, tuple[str, str]], list[Skipped]]:
    """Return label and note of each image that a file has, by digest, and the tasks that cannot be used.

    Images are found by digest or key, as ``write_tasks`` names them, else by the end of their path. Exports in the
    formats JSON and JSON-MIN are read; of several annotations the last one counts. A task without one is no fault.

    Args:
        path: JSON file.
        digest_of: the digest of each image, by key.
    """
    finder = _Finder(digest_of)
    found: dict[str, tuple[str, str]] = {}
    skipped: list[Skipped] = []
    for number, task in enumerate(_tasks(path), 1):
        name = f"task {number}"
        try:
            label = _label(task)
            if label is not None:
                name = next(iter(_addresses(task)), name)[:200]
                found[finder.find(task)] = label, "checked"
        except Gpt4ImageError as error:
            skipped.append(Skipped(name=name, reason=str(error)))
    return found, skipped


def _tasks(path: Path) -> list[Any]:
    if path.stat().st_size > MOST_BYTES:
        raise DataError(f"{path} has more than {MOST_BYTES:,} bytes; export it in parts.")
    try:
        tasks = parse_json(path.read_bytes())
    except ValueError as error:
        raise DataError(f"{path} is no JSON ({error}); export it from Label Studio as JSON or JSON-MIN.") from None
    if not isinstance(tasks, list):
        raise DataError(f"{path} is no list of tasks but a {type(tasks).__name__}; export as JSON or JSON-MIN.")
    short = [task for task in tasks if isinstance(task, dict) and _is_min(task)]
    if short and not any(name in task for task in short for name in FIELDS):
        fields = dict.fromkeys(name for task in short for name in task)
        raise DataError(
            f"{path}: no task has a field {' or '.join(map(repr, FIELDS))}; there are {first_few(fields, 20)}. Call "
            f"the choices {FROM_NAME!r} in Label Studio, or export as JSON, where they may have any name."
        )
    return tasks


def _is_min(task: Mapping[str, Any]) -> bool:
    return "data" not in task and "annotations" not in task


def _label(task: Any) -> str | None:
    """Return the class of a task; None where nobody annotated it. Raises DataError: it is no single choice."""
    if not isinstance(task, dict):
        raise DataError("it is no task")
    if _is_min(task):
        choice = next((task[name] for name in FIELDS if name in task), None)
        found = None if choice is None else [choice]
    else:
        done = [each for each in _objects(task.get("annotations") or []) if not each.get("was_cancelled")]
        values = (
            [one.get("value") for one in _objects(done[-1].get("result")) if one.get("type") == "choices"]
            if done
            else []
        )
        several = [
            value["choices"] for value in values if isinstance(value, dict) and isinstance(value.get("choices"), list)
        ]
        found = [choice for some in several for choice in some] if done else None
    if found is None:
        return None
    if len(found) != 1 or not isinstance(found[0], str) or not found[0].strip():
        raise DataError(f"it needs one choice, and has {str(found)[:80]}")
    return found[0].strip()


def _objects(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise DataError("its annotations are no list of objects with results")
    return value


def _data(task: Mapping[str, Any]) -> Mapping[str, Any]:
    data = task.get("data", task)
    return data if isinstance(data, dict) else {}


def _addresses(task: Mapping[str, Any]) -> list[str]:
    """Return the paths and addresses that a task names its image by."""
    given = _data(task).items()
    return [value for name, value in given if isinstance(value, str) and name not in ("digest", FROM_NAME)]


class _Finder:
    """Finds the image that a task means."""

    def __init__(self, digest_of: Mapping[str, str]) -> None:
        self._digest_of, self._digests = digest_of, set(digest_of.values())
        self._by_name: dict[str, list[str]] = {}
        for key in digest_of:
            self._by_name.setdefault(posixpath.basename(key), []).append(key)

    def find(self, task: Mapping[str, Any]) -> str:
        """Return the digest. Raises DataError: there is no such image, or there are several."""
        data = _data(task)
        digest, key = (str(data.get(name)) for name in ("digest", "key"))
        if digest in self._digests:
            return digest
        if _DIGEST.fullmatch(digest):
            raise DataError(
                "the dataset has no picture with its digest: the file was changed, so the label may be of another "
                "picture; look at it again, or remove the digest from the task"
            )
        if key in self._digest_of:
            return self._digest_of[key]
        for path in (path for address in _addresses(task) for path in _paths(address)):
            keys = self._by_name.get(posixpath.basename(path), [])  # the longest key that it ends with, else keys' ends
            whole = sorted((key for key in keys if f"/{path}".endswith(f"/{key}")), key=len)[-1:]
            found = {self._digest_of[key] for key in whole or keys if whole or f"/{key}".endswith(f"/{path}")}
            if len(found) == 1:
                return found.pop()
        raise DataError("no image of the dataset, or more than one, has its path; keep the paths below the folder")


def _paths(address: str) -> Iterator[str]:
    """Yield the paths that an address may stand for: /data/local-files/?d=PATH, /data/upload/1/0123abcd-NAME."""
    parts = urlsplit(address[:4000]) if "\0" not in address and "[" not in address else None
    query = parse_qs(parts.query).get("d", []) if parts else []
    plain = address.removeprefix(_LOCAL)  # earlier versions did not quote it
    for path in [*query, plain, unquote(parts.path) if parts else address, address]:
        yield path.lstrip("/")
        folder, name = posixpath.split(path.lstrip("/"))
        # What was uploaded lies in one folder, whatever folders it came from.
        yield posixpath.join("" if "upload" in folder.split("/") else folder, _UPLOAD.sub("", name))
