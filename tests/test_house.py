"""The house: every module has its test file, in the same place."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE, TESTS = ROOT / "src" / "gpt4image", ROOT / "tests"

# Modules without a file of their own, and the file that tests them; None for what only declares, or takes minutes.
ELSEWHERE: dict[str, str | None] = {
    "__main__": "test_cli.py",
    "artifacts/store_file": "artifacts/test_store.py",
    "config/alignment": "models/test_alignment.py",
    "config/arms": "comparing/test_arms.py",
    "config/base": "test_config.py",
    "config/comparing": "test_config.py",
    "config/deploying": "test_config.py",
    "config/describing": "test_config.py",
    "config/learning": "test_config.py",
    "config/pretraining": "training/test_pretraining.py",
    "config/training": "test_config.py",
    "describing/describers/base": None,
    "describing/describers/ray": "parallel/test_ray_cluster.py",  # one cluster for all: it takes seconds to start
    "encoding/ray": "parallel/test_ray_cluster.py",
    "encoding/text_encoders/base": None,
    "packaged_demo": None,
    "training/objectives/base": None,
}


def test_every_module_has_a_test_file_in_the_same_place() -> None:
    modules = {
        path.relative_to(SOURCE).with_suffix("").as_posix()
        for path in SOURCE.rglob("*.py")
        if path.name != "__init__.py"
    }
    untested = {name for name in modules if not (TESTS / name).with_name(f"test_{Path(name).name}.py").is_file()}
    assert untested - ELSEWHERE.keys() == set(), "write tests/ROOM/test_MODULE.py"
    assert ELSEWHERE.keys() - untested == set(), "they have one now, or are gone: remove them from the list"
    assert [file for file in ELSEWHERE.values() if file and not (TESTS / file).is_file()] == []
