"""Try the lowest versions that pyproject.toml allows. `make floors` runs both commands.

python .ci/floors.py constraints EXTRA,...  prints NAME==FLOOR for the dependencies of the base and of these extras
python .ci/floors.py imports EXTRA,...      imports every module of the package, except those that need another extra
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import sys
import tomllib
from pathlib import Path

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)(\[.*?\])?>=(?P<floor>[\w.]+)(,<[\w.]+)?")


def floors(requirements: list[str]) -> dict[str, str]:
    """Return the lowest version of each requirement. Raises ValueError for one that is no `NAME>=FLOOR`."""
    found: dict[str, str] = {}
    for requirement in requirements:
        if requirement.startswith(f"{PROJECT['name']}["):
            continue  # other extras of this package
        match = REQUIREMENT.fullmatch(requirement)
        if match is None:
            raise ValueError(f"{requirement!r} in pyproject.toml has no floor: write NAME>=FLOOR")
        found[match["name"]] = match["floor"]
    return found


def tried_and_others(extras: list[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the floors of the base and of these extras, and those of the other extras."""
    optional: dict[str, list[str]] = PROJECT["optional-dependencies"]
    tried = floors([*PROJECT["dependencies"], *(part for extra in extras for part in optional[extra])])
    every = floors([part for parts in optional.values() for part in parts])
    return tried, {name: floor for name, floor in every.items() if name not in tried}


def constraints(extras: list[str]) -> str:
    """Return the constraints of the base and of extras, and as a comment the floors that are not tried."""
    tried, others = tried_and_others(extras)
    lines = [f"{name}=={floor}" for name, floor in sorted(tried.items())]
    return "\n".join([*lines, f"# not tried: {', '.join(sorted(others))}"])


def imports(extras: list[str]) -> list[str]:
    """Import every module of the package; return those that need a package of another extra, with its name.

    Raises:
        ImportError: a module cannot be imported for another reason.
    """
    _, others = tried_and_others(extras)
    package = importlib.import_module(PROJECT["name"])
    missing: list[str] = []
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if module.name.endswith("__main__"):
            continue
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            if not error.name or error.name.partition(".")[0] not in {name.partition("-")[0] for name in others}:
                raise
            missing.append(f"{module.name} (needs {error.name})")
    return missing


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["constraints", extras]:
            print(constraints(extras.split(",")))
        case ["imports", extras]:
            print("\n".join(f"not imported: {line}" for line in imports(extras.split(","))))
        case _:
            sys.exit(__doc__)
