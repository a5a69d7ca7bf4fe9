"""Describers by name."""

from __future__ import annotations

import re

from gpt4image.describing.describers.registry import DESCRIBERS
from gpt4image.reporting import doctor


def test_the_describers_that_extras_are_for_are_there() -> None:
    told = [brings for brings in doctor.EXTRAS.values() if brings.startswith("describer")]
    named = {name for brings in told for name in re.findall(r"([\w-]+):", brings)}
    assert named and named <= DESCRIBERS.keys()
