from __future__ import annotations

from gpt4image.reporting.extras import Descriptions
from gpt4image.reporting.stages import commands
from synthetic_records import descriptions


def known(*describers: str) -> Descriptions:
    rows = [{"prompt": "paper", "describer": name} for name in describers]
    return Descriptions.model_validate(descriptions() | {"store": "my texts.db", "describers": rows})


def test_a_command_that_goes_through_all_stages_stands_alone() -> None:
    for last in ("gpt4image demo --out demo-out", "gpt4image distill photos --describer openai:m"):
        assert commands(known("openai:m"), [], [last, last]) == [last]


def test_texts_that_no_describer_wrote_are_imported_and_nothing_is_made_up() -> None:
    assert commands(known("somebody", "openai:m (seed=1)"), [], ["gpt4image compare --out cmp"]) == [
        "gpt4image descriptions import FILE --store 'my texts.db'",
        "gpt4image describe --data '' --store 'my texts.db' --describer openai:m --prompt paper",
        "gpt4image compare --out cmp",
    ]
    assert commands(None, [], []) == []
