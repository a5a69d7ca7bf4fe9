"""What pip brings is locked and under known licences; floors, cards of the hub and the Dockerfile are right."""

import ast
import importlib.metadata
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import DatasetCard, ModelCard
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from gpt4image.deploying.model_card import front_matter
from gpt4image.tasks.classification import Classification, Video
from gpt4image.tasks.detection import Detection
from gpt4image.tasks.multilabel import MultiLabel
from gpt4image.tasks.segmentation import Segmentation
from repository import EXTRAS, PROJECT, copied, values

ROOT = Path(__file__).parents[1]
FLOORS = runpy.run_path(str(ROOT / ".ci" / "floors.py"))
LOCKED = runpy.run_path(str(ROOT / ".ci" / "locked.py"))
TEXT = (ROOT / "requirements-lock.txt").read_text(encoding="utf-8")
ENTRIES: dict[str, str] = LOCKED["entries"](TEXT)
LICENCES = {"apache-2.0", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "mit", "other", "unknown"}
TASKS_OF_THE_HUB = {"image-classification", "object-detection", "image-segmentation", "video-classification"}
"""Names that the hub knows, of those that are of use here: it refuses others in a card."""
CHOSEN_BY_THE_MACHINE = LOCKED["CHOSEN_BY_THE_MACHINE"]


def locked(entry: str) -> Requirement:
    return Requirement(entry.partition("\\")[0])


def installed(name: str) -> bool:
    try:
        return bool(importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return False


HERE = {name for name, entry in ENTRIES.items() if (m := locked(entry).marker) is None or m.evaluate()}
MISSING = [name for name in sorted(HERE) if not installed(name)]
everything = pytest.mark.skipif(
    bool(MISSING), reason=f"`make check` runs this with every locked package; not installed: {', '.join(MISSING[:3])}"
)


@pytest.fixture(scope="module")
def licences() -> Any:
    sys.path.insert(0, str(ROOT / "docs" / "scripts"))
    try:
        return runpy.run_path(str(ROOT / "docs" / "scripts" / "licences.py"))
    finally:
        sys.path.pop(0)


def test_every_entry_is_an_exact_version_with_hashes_and_the_builds_that_machines_choose_are_absent() -> None:
    assert len(ENTRIES) > 200
    for name, entry in ENTRIES.items():
        assert re.match(r"[a-z0-9-]+==[\w.]+ ", entry) and "--hash=sha256:" in entry, entry
        assert not CHOSEN_BY_THE_MACHINE.fullmatch(name), name
    options = [line for line in TEXT.splitlines() if line.startswith("-")]
    assert options == []  # no other index


def test_every_direct_dependency_is_locked_within_its_bounds() -> None:
    for text in [*PROJECT["dependencies"], *(part for parts in EXTRAS.values() for part in parts)]:
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        if name != PROJECT["name"] and not CHOSEN_BY_THE_MACHINE.fullmatch(name):
            [version] = locked(ENTRIES[name]).specifier
            assert requirement.specifier.contains(version.version), text


def test_make_takes_the_small_build_of_torch_where_its_index_answers_and_says_what_is_downloaded() -> None:
    chosen = runpy.run_path(str(ROOT / ".ci" / "torch_build.py"))["chosen"]
    chosen.__globals__["reachable"] = lambda index: index == "there"
    for index, here, options, size in (
        ("there", {}, ["--extra-index-url", "there"], "torch for CPUs (about 200 MB)"),
        ("http://127.0.0.1:9", {}, [], "127.0.0.1:9 does not answer"),
        ("there", {"gpu": True}, [], "with CUDA (2 to 3 GB)"),
        ("there", {"linux": False}, [], "torch (about 200 MB)"),
        ("there", {"installed": True}, [], "torch is here already"),
    ):
        given, sentence = chosen(index, **{"installed": False, "gpu": False, "linux": True} | here)
        assert given == options and size in sentence


@everything
def test_the_sbom_lists_all_and_none_is_under_the_gpl_except_encoders_in_two_optional_extras(licences: Any) -> None:
    packages = licences["packages"]()
    assert len(packages) > 200 and {each["name"] for each in licences["sbom"]()["components"]} >= HERE
    assert [(one.name, one.licence) for one in packages if re.search(r"\bA?GPL|GNU|not stated", one.licence)] == []
    assert {one.name for one in packages if one.bundled} == {"av", "pillow-heif"}
    design = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    for name in ("av (extra `video`)", "pillow-heif (extra `heic`)"):  # said there, and so never a default
        assert f"| {name} |" in design


def test_the_hub_accepts_the_cards_of_models_and_datasets() -> None:
    for task in (Classification, Detection, MultiLabel, Segmentation, Video):
        for licence in (None, "CC BY 4.0"):
            card = ModelCard(f"---\n{front_matter('timm', licence, task.hub_task)}\n---\n# A model\n")
            assert card.data.license in LICENCES and (card.data.license != "other" or card.data.license_name)
            assert card.data.pipeline_tag in TASKS_OF_THE_HUB and card.data.library_name == "timm"
    for path in (ROOT / "src" / "gpt4image" / "packaged").rglob("README.md"):
        data = DatasetCard.load(path).data
        assert data.license in LICENCES and set(data.task_categories) <= TASKS_OF_THE_HUB, path


def test_every_dependency_has_a_floor_and_its_constraint_fits() -> None:
    lines = FLOORS["constraints"](list(EXTRAS)).splitlines()
    pinned = {line.partition("==")[0]: line.partition("==")[2] for line in lines if "==" in line}
    for text in [*PROJECT["dependencies"], *(part for parts in EXTRAS.values() for part in parts)]:
        requirement = Requirement(text)
        if requirement.name != PROJECT["name"]:
            assert requirement.specifier.contains(pinned[requirement.name]), text
    assert "ray" in FLOORS["constraints"](["demo"]).splitlines()[-1], "what is not tried is named"
    with pytest.raises(ValueError, match="has no floor"):
        FLOORS["floors"](["torch"])


def test_no_module_needs_one_of_posix_to_be_imported() -> None:
    only_posix = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "termios"}
    for path in (ROOT / "src").rglob("*.py"):
        nodes = ast.parse(path.read_text(encoding="utf-8")).body
        names = {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
        assert names.isdisjoint(only_posix), path


def test_the_dockerfile_copies_what_is_there_pins_its_base_and_runs_without_rights() -> None:
    let_in = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert copied() and [source for source in copied() if not (ROOT / source).exists()] == []
    assert {"*", *(f"!{source}" for source in copied())} <= set(let_in)
    arguments = dict(value.split("=", 1) for value in values("ARG") if "=" in value)
    assert re.fullmatch(r"3\.1[1-9]\.\d+-slim-\w+", arguments["PYTHON"])
    assert all(base.startswith("python:${PYTHON}") for base in values("FROM"))
    assert set(arguments["EXTRAS"].split(",")) <= EXTRAS.keys()
    assert (values("USER"), values("ENTRYPOINT")) == (["gpt4image"], ['["gpt4image"]'])
