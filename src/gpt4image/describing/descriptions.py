"""The stages of ``descriptions``: import, export and check of a description store."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from gpt4image.artifacts.answers import KINDS, Answer, box_counts, find_prompt
from gpt4image.artifacts.store import ClassOption, Description, DescriptionStore, Prompt, canonical_json
from gpt4image.artifacts.table import text_digest
from gpt4image.base.errors import ConfigError, DataError, DecodeError, StoreError, first_few
from gpt4image.base.outcome import Skipped
from gpt4image.base.progress import progress_bar
from gpt4image.base.secrets import hidden
from gpt4image.config import CheckConfig, ExportDescriptionsConfig, ImportDescriptionsConfig
from gpt4image.config.results import StoreResult
from gpt4image.data import Dataset, load_dataset
from gpt4image.data.decode import sides
from gpt4image.describing.asking import asked_images
from gpt4image.describing.boxes import box_facts
from gpt4image.describing.class_lists import ClassNames, class_list, class_names
from gpt4image.describing.questions import BOXES, CLASS, asks_of_list
from gpt4image.describing.rows import Row, describer_settings, read_rows, to_fields, write_rows

_Content = tuple[str | None, Answer | None]
_ROWS_PER_TRANSACTION = 1000
_NAMES_SHOWN = 20


def import_descriptions(config: ImportDescriptionsConfig) -> StoreResult:
    """Bring the rows of a file into the store; rows that are there already change nothing.

    A bad row, an unknown key or a second, different text for the same image is skipped by name; the first text stays.
    Raises ConfigError, DataError where no row belongs to the dataset, and StoreError.
    """
    if config.box_format.endswith("-original") and config.data is None:
        raise ConfigError(f"--box-format {config.box_format} needs --data, whose pictures say how large they are.")
    images = None if config.data is None else load_dataset(config.data)
    importer, waiting = _Importer(config, images), iter(read_rows(config.file))
    with DescriptionStore(config.store, write=True) as store, progress_bar() as bar:
        task = bar.add_task("import", total=None, note="")
        if config.data is not None:
            store.note_dataset(hidden(config.data))
        while group := list(itertools.islice(waiting, _ROWS_PER_TRANSACTION)):
            importer.add(store, group)
            bar.update(task, advance=len(group))
    counts, here = importer.counts, importer.counts["added"] + importer.counts["unchanged"]
    if images is not None and importer.unknown_keys and not here:
        raise DataError(
            f"{config.file}: no row belongs to {config.data}: it has no {first_few(importer.unknown_keys)}; its "
            f"keys look like {first_few(images.keys[:3])}."
        )
    classes = importer.classes
    counted = {
        "rows": here + len(importer.skipped),
        "added": counts["added"],
        "unchanged": counts["unchanged"],
        "descriptions": counts["texts"],
        "unknown_keys": counts["unknown_keys"],
        "conflicting_texts": counts["conflicts"],
        "bad_rows": len(importer.skipped) - counts["conflicts"] - counts["unknown_keys"],
        **{f"class_{kind}": classes[kind] for kind in KINDS if classes},
        **importer.boxes,
    }
    return StoreResult(path=config.store, counted=counted, skipped=tuple(importer.skipped))


class _Importer:
    def __init__(self, config: ImportDescriptionsConfig, images: Dataset | None) -> None:
        self._images, self._box_format = images, config.box_format
        self._prompt, self._describer = find_prompt(config.prompt), describer_settings(config.describer)
        digests = () if images is None else images.digests
        self._row_of = {digest: row for row, digest in enumerate(digests)}
        self._digest_of = None if images is None else dict(zip(images.keys, digests, strict=True))
        own = () if images is None else tuple(map(ClassOption, images.classes))
        classes = own if config.classes is None else class_list(config.classes)

        @cache
        def asking(prompt: Prompt, ask: tuple[str, ...]) -> Prompt:
            return replace(prompt, ask=ask, classes=classes if asks_of_list(ask) else ())

        self._asking = asking  # a long class list is checked only once
        self.counts, self.classes, self.boxes = Counter[str](), Counter[str](), Counter[str]()
        self.unknown_keys: list[str] = []
        self.skipped: list[Skipped] = []

    def add(self, store: DescriptionStore, rows: Sequence[Row | Skipped]) -> None:
        """Write the new ones of ``rows`` in one transaction."""
        found: list[tuple[Row, Description]] = []
        for row in rows:
            description = row if isinstance(row, Skipped) else self._description(row)
            if isinstance(description, Skipped):
                self.skipped.append(description)
            else:
                assert isinstance(row, Row)  # noqa: S101
                found.append((row, description))
        known: dict[Any, _Content] = {}
        for there in store.descriptions(digests=[description.digest for _, description in found]):
            known[_place(there)] = there.text, there.answer
        new: list[Description] = []
        for row, description in found:
            content, place = (description.text, description.answer), _place(description)
            is_new = place not in known
            if known.setdefault(place, content) != content:
                self.counts["conflicts"] += 1
                which = f"{row.key or description.digest!r} with the same prompt and describer"
                self.skipped.append(Skipped(name=row.where, reason=f"another answer for {which} is there; it stays"))
                continue
            self.counts["texts"] += description.text is not None
            self.counts["unchanged"] += not is_new
            if is_new:
                new.append(description)
                self.boxes.update(box_facts(description, description.prompt.class_names))
                if description.answer is not None and CLASS in description.prompt.ask:
                    self.classes[description.answer.kind] += 1
        self.counts["added"] += store.add(new)

    def _description(self, row: Row) -> Description | Skipped:
        digest = row.digest
        if digest is None:
            if row.key is None:
                return Skipped(name=row.where, reason="neither key nor digest")
            if self._digest_of is None:
                raise ConfigError(f"{row.where}: rows by key need --data, the dataset that the keys belong to.")
            if (digest := self._digest_of.get(row.key)) is None:
                self.counts["unknown_keys"] += 1
                self.unknown_keys = [*self.unknown_keys, row.key][:3]
                return Skipped(name=row.where, reason=f"the dataset has no image with key {row.key!r}")
        picture = None
        if BOXES in row.ask and self._images is not None and self._box_format.endswith("-original"):
            try:
                picture = sides(self._images.read(self._row_of[digest]))
            except (OSError, DecodeError, KeyError):
                reason = "its boxes are in pixels, and its picture cannot be read or is not in the dataset"
                return Skipped(name=row.where, reason=reason)
        prompt = row.prompt or self._prompt
        prompt = replace(prompt, **row.asked) if row.asked else self._asking(prompt, row.ask)
        rest: dict[str, Any] = {"created": time.time(), **row.result}
        return Description(
            digest=digest,
            prompt=prompt,
            describer=self._describer if row.describer is None else row.describer,
            sample=row.sample or 0,
            text=row.description,
            answer=row.answer(class_names(prompt.class_names), self._box_format, picture),
            **rest,
        )


def _place(description: Description) -> tuple[Any, ...]:
    return description.digest, description.prompt, canonical_json(description.describer), description.sample


def export_descriptions(config: ExportDescriptionsConfig) -> StoreResult:
    """Write the descriptions of a store to a file that ``import_descriptions`` reads back without loss.

    Raises ConfigError, and StoreError where there is nothing to export or no room for the file.
    """
    keys_of: dict[str, list[str]] = {}
    if config.data is not None:
        images = load_dataset(config.data)
        for key, digest in zip(images.keys, images.digests, strict=True):
            keys_of.setdefault(digest, []).append(key)
    counts = Counter[str]()

    def exported(store: DescriptionStore) -> Iterator[Mapping[str, Any]]:
        for description in store.descriptions(prompt_name=config.prompt):
            counts["descriptions"] += 1
            for key in keys_of.get(description.digest, [None]):
                counts["rows"] += 1
                yield to_fields(description, key)

    with DescriptionStore(config.store) as store:
        if not any(store.answers()):
            store.require_descriptions(config.prompt)
        write_rows(config.file, exported(store))
    return StoreResult(path=config.file, counted={name: counts[name] for name in ("descriptions", "rows")})


def check(config: CheckConfig) -> StoreResult:
    """Compare a store with a dataset: what lacks a description or an image, which texts and classes are suspicious.

    Images of the splits that are asked about without a description, and those that were skipped when the dataset was
    loaded, are named; the rest is counted and the first ones named. Raises DataError, StoreError.
    """
    images, asked = asked_images(config, config.data)
    in_set, boxes = ClassNames(images.classes), Counter[str]()
    described, answered, conflicting = set[str](), set[str](), list[str]()
    outside, outside_boxes = list[tuple[str, str | None]](), list[tuple[str, str | None]]()
    first_image, duplicates = dict[bytes, str](), dict[bytes, str]()
    with DescriptionStore(config.store) as store:
        for digest, rows in itertools.groupby(store.texts(), key=lambda row: row.digest):
            described.add(digest)
            texts_of: dict[Prompt, set[str]] = {}
            for _, text, prompt, _ in rows:
                texts_of.setdefault(prompt, set()).add(text)
                if first_image.setdefault(text_digest(text), digest) != digest:
                    duplicates[text_digest(text)] = text
            if any(len(texts) > 1 for texts in texts_of.values()):
                conflicting.append(digest)
        for stored in store.answers():
            answered.add(stored.digest)
            boxes.update(box_counts([stored.answer]))
            foreign = {box["label"]: None for box in stored.answer.boxes or () if in_set.find(box["label"]) is None}
            outside_boxes += ((stored.digest, label) for label in foreign)
            chosen = stored.answer.class_name
            if stored.answer.is_unmapped or (chosen is not None and in_set.find(chosen) is None):
                outside.append((stored.digest, stored.answer.said or chosen))
    with_answer = described or answered
    if with_answer.isdisjoint(images.digests):
        raise StoreError(
            f"{config.store}: none of its {len(with_answer)} described images is in {config.data}; the store belongs "
            f"to other images (equal images have equal bytes: a picture that was saved again is another one)."
        )
    key_of = dict(zip(reversed(images.digests), reversed(images.keys), strict=True))
    missing = [key for key, digest in zip(asked.keys, asked.digests, strict=True) if digest not in with_answer]
    named = {
        "descriptions_without_image": sorted(with_answer - key_of.keys()),
        "texts_of_several_images": list(duplicates.values()),
        "images_with_conflicting_texts": [key_of.get(digest, digest) for digest in conflicting],
        **({"answers_outside_list": [f"{key_of.get(d, d)} ({said})" for d, said in outside]} if answered else {}),
        **({"boxes_outside_list": [f"{key_of.get(d, d)} ({said})" for d, said in outside_boxes]} if boxes else {}),
    }
    counted = {
        "images": len(asked),
        "images_described": len(asked) - len(missing),
        "images_without_description": len(missing),
        "images_skipped": len(images.skipped),
        **boxes,
        **{name: len(items) for name, items in named.items()},
    }
    return StoreResult(
        path=config.store,
        counted=counted,
        text="\n".join(f"{name.replace('_', ' ')}: {first_few(i, _NAMES_SHOWN)}" for name, i in named.items() if i),
        skipped=(*images.skipped, *(Skipped(name=key, reason="no description") for key in missing)),
    )
