"""The lowest versions: each dependency has one, and CI tries them."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from project_file import EXTRAS, PROJECT

ROOT = Path(__file__).parents[1]
FLOORS = runpy.run_path(str(ROOT / ".ci" / "floors.py"))


def test_every_dependency_has_a_floor_and_its_constraint_fits() -> None:
    lines = FLOORS["constraints"](list(EXTRAS)).splitlines()
    pinned = {line.partition("==")[0]: line.partition("==")[2] for line in lines if "==" in line}
    assert lines[-1] == "# not tried: " and pinned.keys() > {"torch", "openai", "ray", "pytest"}
    for text in [*PROJECT["dependencies"], *(part for parts in EXTRAS.values() for part in parts)]:
        requirement = Requirement(text)
        if requirement.name != PROJECT["name"]:
            assert requirement.specifier.contains(pinned[requirement.name]), text


def test_what_is_not_tried_is_named_and_a_requirement_without_floor_is_refused() -> None:
    assert "ray" in FLOORS["constraints"](["demo"]).splitlines()[-1]
    with pytest.raises(ValueError, match="has no floor"):
        FLOORS["floors"](["torch"])


def test_ci_runs_the_checks_the_tests_and_the_floors() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert re.findall(r"^make (\w+)$", script, re.MULTILINE) == ["demo", "test", "check", "floors"]
