"""What identifies a model on this machine, and what is wrong with its files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from gpt4image.base.errors import ConfigError
from gpt4image.config import DescriberOptions
from gpt4image.describing.describers.local import model_files
from gpt4image.describing.describers.local.model_files import ModelFiles, find_model_files, is_greedy, local_settings

OPTIONS = DescriberOptions(describer="transformers:model")

# One other value for every option there is: a new option must be thought about here.
OTHER: dict[str, Any] = {
    **{"as_json": True, "describer": "transformers:elsewhere/model", "server_name": "mine", "device": "cpu"},
    **{"image_format": "png", "detail": "low", "extra_body": {"seed": 1}, "base_url": "http://localhost:1/v1"},
    **dict.fromkeys(("concurrency", "retries", "batch_size", "max_tokens"), 1),
    **dict.fromkeys(("requests_per_minute", "tokens_per_minute", "timeout"), 1.0),
    **{"prices": Path("prices.json")},
    **{"system": "", "temperature": 0.5, "max_side": 32, "precision": "bf16"},
    **{"frames": 4, "contact_sheet": True},
}
DECIDES = {"system", "temperature", "max_tokens", "max_side", "precision", "frames", "contact_sheet"}


@pytest.fixture
def model(tiny_vlm: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_vlm, tmp_path / "model"))


def settings(model: Path, options: DescriberOptions = OPTIONS) -> dict[str, Any]:
    return local_settings("transformers", find_model_files("transformers", str(model)), options)


def test_identity_changes_with_every_option_that_changes_the_text_and_no_other(model: Path) -> None:
    assert OTHER.keys() == DescriberOptions.model_fields.keys()
    before = settings(model)
    changed = {
        name for name, value in OTHER.items() if settings(model, OPTIONS.model_copy(update={name: value})) != before
    }
    assert changed == DECIDES


def test_identity_is_the_content_of_the_folder_not_its_place(model: Path, tmp_path: Path) -> None:
    before = settings(model)
    moved = tmp_path / "elsewhere" / "model"
    shutil.copytree(model, moved)
    (moved / "README.md").write_text("Another read-me.")
    assert settings(moved) == before
    assert json.loads(json.dumps(before)) == before


@pytest.mark.parametrize(
    "name", ["model.safetensors", "chat_template.jinja", "tokenizer.json", "generation_config.json"]
)
def test_identity_changes_with_one_byte_of_what_counts(model: Path, name: str) -> None:
    before = settings(model)
    content = bytearray((model / name).read_bytes())
    content[-2] ^= 1
    (model / name).write_bytes(content)
    assert settings(model)["fingerprint"] != before["fingerprint"]


def test_a_large_file_is_known_by_its_size_and_pieces_of_it(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_files, "_PIECE_BYTES", 256)
    weights = model / "model.safetensors"
    content = bytearray(weights.read_bytes())
    assert len(content) > 64 * 256

    def known(content: bytes) -> str:
        weights.write_bytes(content)
        return ModelFiles("transformers:model", "model", model).fingerprint

    whole = known(bytes(content))
    assert known(bytes(content)) == whole
    for place in (0, len(content) - 1, (len(content) - 256) // 63 + 9):
        assert known(bytes(content[:place]) + bytes([content[place] ^ 1]) + bytes(content[place + 1 :])) != whole
    assert known(bytes(content) + b"\0") != whole


@pytest.mark.parametrize(
    ("temperature", "samples", "greedy"),
    [(None, False, True), (None, True, False), (0.0, True, True), (0.7, False, False), (None, None, True)],
)
def test_greedy_is_temperature_0_or_the_model_s_own_way(
    model: Path, temperature: float | None, samples: bool | None, greedy: bool
) -> None:
    own = model / "generation_config.json"
    own.unlink() if samples is None else own.write_text(json.dumps({"do_sample": samples}))
    options = OPTIONS.model_copy(update={"temperature": temperature})
    assert is_greedy(find_model_files("transformers", str(model)), options) is greedy


def test_files_that_cannot_be_used_are_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"^transformers:/nowhere/model: there is no folder '/nowhere/model'; give a folder"
    ):
        find_model_files("transformers", "/nowhere/model")
    (model / "config.json").write_text("[1, 2")
    with pytest.raises(ConfigError, match=r"config\.json cannot be read as JSON"):
        _ = find_model_files("transformers", str(model)).model_type
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="pickled weights are never loaded"):
        find_model_files("transformers", str(model))


def test_a_hub_model_is_called_by_its_id(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(model))
    files = find_model_files("transformers", "owner/model")
    assert (files.name, files.folder, files.spec) == ("owner/model", model, "transformers:owner/model")
