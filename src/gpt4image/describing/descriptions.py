"""The stages ``descriptions import`` and ``export``: rows of a file into a store, and back without loss."""

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from gpt4image.artifacts.answers import BOXES, CLASS, KINDS, find_prompt
from gpt4image.artifacts.class_lists import class_list, class_names
from gpt4image.artifacts.store import ClassOption, Description, DescriptionStore, Prompt, canonical_json
from gpt4image.base.errors import ConfigError, DataError, DecodeError, first_few
from gpt4image.base.outcome import Skipped
from gpt4image.base.progress import progress_bar
from gpt4image.base.secrets import hidden
from gpt4image.config import ExportDescriptionsConfig, ImportDescriptionsConfig
from gpt4image.config.results import StoreResult
from gpt4image.data import Dataset, load_dataset
from gpt4image.data.decode import sides
from gpt4image.describing.boxes import box_facts
from gpt4image.describing.questions import asks_of_list
from gpt4image.describing.rows import RESULT, Row, describer_settings, read_rows, to_fields, write_rows

_ROWS_PER_TRANSACTION = 1000
_UNKNOWN = "the dataset has no image with key "
_CONFLICT = "another answer for the same image, prompt and describer is there; it stays"


def import_descriptions(config: ImportDescriptionsConfig) -> StoreResult:
    """Bring the rows of a file into the store; rows that are there already change nothing.

    A bad row, an unknown key or a second, different text for the same image is skipped by name; the first text stays.
    Raises ConfigError, DataError where no row belongs to the dataset, and StoreError.
    """
    if config.box_format.endswith("-original") and config.data is None:
        raise ConfigError(f"--box-format {config.box_format} needs --data, whose pictures say how large they are.")
    images = None if config.data is None else load_dataset(config.data)
    counts, skipped, facts = Counter[str](), list[Skipped](), Counter[str]()
    to_description, waiting = _converter(config, images), read_rows(config.file)
    with DescriptionStore(config.store, write=True) as store, progress_bar() as bar:
        task = bar.add_task("import", total=None, note="")
        if config.data is not None:
            store.note_dataset(hidden(config.data))
        while group := list(itertools.islice(waiting, _ROWS_PER_TRANSACTION)):
            rows = [(row, row if isinstance(row, Skipped) else to_description(row)) for row in group]
            found = [(row.where, one) for row, one in rows if isinstance(row, Row) and isinstance(one, Description)]
            skipped += [one for _, one in rows if isinstance(one, Skipped)]
            known = {_name(one): one for one in store.descriptions(digests=[one.digest for _, one in found])}
            new = list[Description]()
            for where, one in found:
                if (there := known.setdefault(_name(one), one)) is one:
                    new.append(one)
                    facts.update(box_facts(one, one.prompt.class_names))
                    if one.answer is not None and CLASS in one.prompt.ask:
                        facts[f"class_{one.answer.kind}"] += 1
                elif (there.text, there.answer) != (one.text, one.answer):
                    skipped.append(Skipped(name=where, reason=_CONFLICT))
                    continue
                counts["descriptions"] += one.text is not None
                counts["unchanged"] += there is not one
            counts["added"] += store.add(new)
            bar.update(task, advance=len(group))
    unknown, here = (
        [item for item in skipped if item.reason.startswith(_UNKNOWN)],
        counts["added"] + counts["unchanged"],
    )
    if images is not None and unknown and not here:
        keys = first_few((item.reason.removeprefix(_UNKNOWN) for item in unknown), 3)
        of_data = first_few(images.keys[:3])
        raise DataError(f"{config.file}: no row belongs to {config.data}: no {keys}; its keys look like {of_data}.")
    conflicts = sum(item.reason == _CONFLICT for item in skipped)
    counted = {"rows": here + len(skipped)} | {name: counts[name] for name in ("added", "unchanged", "descriptions")}
    counted |= {"unknown_keys": len(unknown), "conflicting_texts": conflicts}
    counted |= {"bad_rows": len(skipped) - conflicts - len(unknown)}
    kinds = [f"class_{kind}" for kind in KINDS if any(f"class_{one}" in facts for one in KINDS)]
    return StoreResult(path=config.store, counted=counted | dict.fromkeys(kinds, 0) | facts, skipped=tuple(skipped))


def _converter(config: ImportDescriptionsConfig, images: Dataset | None) -> Callable[[Row], Description | Skipped]:
    """Return what makes a description of a row, or says why it is none."""
    digests = () if images is None else images.digests
    row_of, default = {digest: row for row, digest in enumerate(digests)}, find_prompt(config.prompt)
    digest_of = {} if images is None else dict(zip(images.keys, digests, strict=True))
    own = () if images is None else tuple(map(ClassOption, images.classes))
    classes = own if config.classes is None else class_list(config.classes)
    in_pixels, imported = config.box_format.endswith("-original"), time.time()

    @cache
    def asking(prompt: Prompt, ask: tuple[str, ...]) -> Prompt:  # a long class list is checked only once
        return replace(prompt, ask=ask, classes=classes if asks_of_list(ask) else ())

    def convert(row: Row) -> Description | Skipped:
        digest, picture = row.digest or digest_of.get(row.key or ""), None
        if digest is None and row.key is not None and images is None:
            raise ConfigError(f"{row.where}: rows by key need --data, the dataset that the keys belong to.")
        if digest is None:
            reason = "neither key nor digest" if row.key is None else f"{_UNKNOWN}{row.key}"
            return Skipped(name=row.where, reason=reason)
        if BOXES in row.ask and images is not None and in_pixels:
            try:
                picture = sides(images.read(row_of[digest]))
            except (OSError, DecodeError, KeyError):
                reason = "its boxes are in pixels, and its picture cannot be read or is not in the dataset"
                return Skipped(name=row.where, reason=reason)
        prompt = row.prompt or default
        prompt = asking(prompt, row.ask) if row.asked is None else replace(prompt, **dict(row.asked))
        result: dict[str, Any] = {"created": imported}
        result |= {name: value for name in RESULT if (value := getattr(row, name)) is not None}
        return Description(
            digest=digest,
            prompt=prompt,
            describer=describer_settings(row.describer or config.describer),
            text=row.description,
            answer=row.answer(class_names(prompt.class_names), config.box_format, picture),
            **result,
        )

    return convert


def _name(description: Description) -> tuple[Any, ...]:
    return description.digest, description.prompt, canonical_json(description.describer), description.sample


def export_descriptions(config: ExportDescriptionsConfig) -> StoreResult:
    """Write the descriptions of a store to a file that ``import_descriptions`` reads back without loss.

    Raises ConfigError, StoreError where there is nothing to export, and OSError.
    """
    keys_of: dict[str, list[str]] = {}
    if config.data is not None:
        images = load_dataset(config.data)
        for key, digest in zip(images.keys, images.digests, strict=True):
            keys_of.setdefault(digest, []).append(key)
    counts = Counter[str](descriptions=0, rows=0)

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
    return StoreResult(path=config.file, counted=counts)
