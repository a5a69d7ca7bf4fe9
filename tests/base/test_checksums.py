"""Checksums of records and of the files that they list."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from gpt4image.base.checksums import FILES, card_checksums, card_section, file_facts, recorded_files, require_recorded
from gpt4image.base.errors import DamagedError
from gpt4image.base.files import read_json, write_json


def test_a_record_that_was_changed_does_not_match_its_checksum_and_one_without_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {2: "é", 10: [0.1, 1e300], "n": None})
    assert read_json(path) == {"2": "é", "10": [0.1, 1e300], "n": None}
    path.write_text(path.read_text().replace("0.1", "0.2"))
    with pytest.raises(DamagedError, match=r"does not match its checksum; if you changed it on purpose, delete"):
        read_json(path)
    write_json(path, {"a": 1}, checksum=False)
    assert json.loads(path.read_text()) == read_json(path) == {"a": 1}


def test_a_listed_file_is_missed_when_it_is_gone_longer_or_changed(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"abc")
    record = {FILES: file_facts(tmp_path, ["a.bin"])}
    require_recorded(tmp_path, "a.bin", record)
    with pytest.raises(DamagedError, match="does not list it"):
        require_recorded(tmp_path, "b.bin", record)
    (tmp_path / "a.bin").write_bytes(b"abd")
    with pytest.raises(DamagedError, match="its content does not match its checksum"):
        require_recorded(tmp_path, "a.bin", record)
    require_recorded(tmp_path, "a.bin", record, largest=2)  # of a large file only the size is compared
    (tmp_path / "a.bin").write_bytes(b"abcd")
    with pytest.raises(DamagedError, match="it has 4 bytes, not the 3 that were written"):
        require_recorded(tmp_path, "a.bin", record, largest=2)
    (tmp_path / "a.bin").unlink()
    with pytest.raises(DamagedError, match=r"a\.bin is missing"):
        require_recorded(tmp_path, "a.bin", record)


@pytest.mark.parametrize(
    "files",
    [["a"], {"a": 3}, {"a": {"bytes": 3}}, {"../a": {"bytes": 3, "sha256": ""}}, {"/a": {"bytes": 3, "sha256": ""}}],
)
def test_a_list_of_files_that_is_malformed_or_leads_out_is_refused(files: object) -> None:
    with pytest.raises(DamagedError, match="does not list files with their bytes and sha256"):
        recorded_files({FILES: files})


def test_a_model_card_gives_back_the_checksums_of_its_files(tmp_path: Path) -> None:
    for name in ("model.safetensors", "a b.json"):
        (tmp_path / name).write_text(name)
    card = card_section("# A card\n", tmp_path, ["model.safetensors", "a b.json"])
    digests = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("model.safetensors", "a b.json")}
    assert card_checksums(card) == digests
    with pytest.raises(ValueError, match="does not match its checksum"):
        card_checksums(card.replace("A card", "A cart"))
    assert card_checksums(f"    {'0' * 64}  ../up\n") == {}
