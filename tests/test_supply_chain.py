"""What pip brings: locked with hashes, complete, under licences that are known, and listed as an SBOM."""

from __future__ import annotations

import importlib.metadata
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from project_file import EXTRAS, PROJECT

ROOT = Path(__file__).parents[1]
LOCKED = runpy.run_path(str(ROOT / ".ci" / "locked.py"))
TEXT = (ROOT / "requirements-lock.txt").read_text(encoding="utf-8")
ENTRIES: dict[str, str] = LOCKED["entries"](TEXT)
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
@pytest.mark.slow
def test_no_package_is_under_the_gpl_except_the_bundled_encoders_of_two_optional_extras(licences: Any) -> None:
    packages = licences["packages"]()
    assert len(packages) > 200
    assert [(one.name, one.licence) for one in packages if re.search(r"\bA?GPL|GNU|not stated", one.licence)] == []
    assert {one.name for one in packages if one.bundled} == {"av", "pillow-heif"}
    design = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    for name in ("av (extra `video`)", "pillow-heif (extra `heic`)"):  # said there, and so never a default
        assert f"| {name} |" in design


@everything
@pytest.mark.slow
def test_the_sbom_lists_every_package_with_version_licence_hashes_and_what_it_needs(licences: Any) -> None:
    bom = licences["sbom"]()
    components = {each["name"]: each for each in bom["components"]}
    assert (bom["bomFormat"], bom["specVersion"]) == ("CycloneDX", "1.6")
    assert components.keys() >= HERE | {"torch", "torchvision"}
    for name in HERE:
        [source] = components[name]["externalReferences"]
        assert {each["content"] for each in source["hashes"]} == set(re.findall(r"sha256:(\w+)", ENTRIES[name]))
        assert components[name]["licenses"][0]["license"]["name"]
    needs = {each["ref"]: each["dependsOn"] for each in bom["dependencies"]}
    assert components["timm"]["purl"] in needs["gpt4image"]
    assert set().union(*needs.values()) <= needs.keys()
