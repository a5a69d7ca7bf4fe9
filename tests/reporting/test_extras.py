from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gpt4image.base.files import write_json
from gpt4image.reporting.extras import Descriptions, SpaceMap
from gpt4image.reporting.records import Record, load_item
from synthetic_records import descriptions, space_map


def test_records_beside_the_results_are_read_and_may_be_missing(tmp_path: Path) -> None:
    write_json(tmp_path / "descriptions.json", descriptions())
    found, set_aside = load_item(tmp_path / "descriptions.json", Descriptions)
    assert found is not None and found.vocabulary is not None and found.vocabulary.words == 3247 and set_aside == []
    assert load_item(tmp_path / "map.json", SpaceMap) == (None, [])


@pytest.mark.parametrize(
    ("kind", "record"),
    [
        (Descriptions, descriptions() | {"words_histogram": {"edges": [1, 2], "counts": [1, 2]}}),
        (Descriptions, {"images": 3}),
        (SpaceMap, space_map() | {"points": []}),
        (SpaceMap, space_map() | {"after": {"name": "aligned", "own_class": "many"}}),
        (SpaceMap, [1, 2]),
    ],
)
def test_a_malformed_record_is_set_aside(kind: type[Record], record: Any, tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", record)
    found, set_aside = load_item(tmp_path / "x.json", kind)
    assert found is None and [item.name for item in set_aside] == ["x.json"]
    (tmp_path / "x.json").write_text("{")
    assert load_item(tmp_path / "x.json", kind)[1]
