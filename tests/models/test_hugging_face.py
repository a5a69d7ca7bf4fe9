"""Models in the Hugging Face layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from gpt4image.base.errors import ConfigError, ModelError
from gpt4image.encoding.text_encoders.registry import load_text_encoder
from gpt4image.models.backbones import create_backbone
from gpt4image.models.hugging_face import find_folder, loading


def test_a_folder_is_itself_and_a_hub_id_its_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_folder(str(tmp_path), ("*.json",)) == tmp_path
    asked = []

    def fetch(name: str, allow_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    assert find_folder("owner/model", ("*.json", "*.safetensors")) == tmp_path
    assert asked == [("owner/model", ["*.json", "*.safetensors"])]


def test_what_the_hub_does_not_give_is_explained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(LookupError, match=r"no such folder here and Hugging Face does not give it \(.+\); check"):
        find_folder("owner/no-such-model", ("*.json",))


def test_a_hub_that_cannot_be_reached_is_asked_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("it is asked again"))
    encoder = "sentence-transformers:owner/no-such-model"
    with pytest.raises(ModelError, match=r"127\.0\.0\.1 cannot be reached: Connection refused.*HF_HUB_OFFLINE=1"):
        load_text_encoder(encoder, "cpu").encode(["a"])
    with pytest.raises(ModelError, match=r"of resnet18 cannot be loaded: 127\.0\.0\.1 cannot be reached.*HF_HOME"):
        create_backbone("resnet18", classes=2, image_size=32, init="pretrained")
    assert constants.HF_HUB_OFFLINE is False
    copy = tmp_path / "models--owner--here" / "snapshots" / "c0ffee"
    copy.mkdir(parents=True)
    (copy / "config.json").write_text("{}")
    (copy.parents[1] / "refs").mkdir()
    (copy.parents[1] / "refs" / "main").write_text("c0ffee")
    assert find_folder("owner/here", ("*.json",)) == copy, "what is in the cache is used"


@pytest.mark.parametrize(
    ("file", "content", "named"),
    [
        ("modules.json", [{"type": "writer.Writer"}], "'writer.Writer'"),
        ("modules.json", [{"type": "sentence_transformers.models.Pooling"}, {"type": "os.path"}], "'os.path'"),
        ("modules.json", [{"type": "sentence_transformers.util.misc.os"}], "'sentence_transformers.util.misc.os'"),
        ("modules.json", [{"type": ["writer.Writer"]}], "writer.Writer"),
        ("1_Router/router_config.json", {"types": {"query": "writer.Writer"}}, "'writer.Writer'"),
        ("1_Router/config.json", {"types": {"query": "writer.Writer"}}, "'writer.Writer'"),
        ("0/wordembedding_config.json", {"tokenizer_class": "writer.Writer"}, "'writer.Writer'"),
        ("2_Dense/config.json", {"activation_function": "torch.hub.load"}, "'torch.hub.load'"),
        ("config.json", {"auto_map": {"AutoModel": "modeling_x.X"}}, "modeling_x.X"),
        ("config.json", {"text_config": {"auto_map": {"AutoModel": "other/repository--x.X"}}}, "other/repository--x.X"),
        ("tokenizer_config.json", {"auto_map": ["tokenization_x.X", None]}, "tokenization_x.X"),
    ],
)
def test_code_that_a_model_names_is_refused(file: str, content: Any, named: str, tmp_path: Path) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(json.dumps(content))
    with pytest.raises(LookupError, match="code that comes with a model is never run") as refused:
        find_folder(str(tmp_path), ("*.json",))
    assert str(tmp_path / file) in str(refused.value) and named in str(refused.value)


def test_python_files_are_refused_and_a_file_that_no_library_can_read_is_left_to_it(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    (tmp_path / "tokenizer_config.json").write_text("[" * 100_000)
    assert find_folder(str(tmp_path), ("*.json",)) == tmp_path
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "modeling_x.py").touch()
    with pytest.raises(LookupError, match=r"modeling_x\.py is Python code"):
        find_folder(str(tmp_path), ("*.json",))


def test_what_a_library_raises_becomes_an_error_of_ours() -> None:
    with pytest.raises(ModelError, match=r"^the model: no such thing$"), loading("the model", ModelError):
        raise Exception("no such thing\nand more")
    with pytest.raises(ConfigError, match=r"^ours$"), loading("the model", ModelError):
        raise ConfigError("ours")
    with pytest.raises(KeyboardInterrupt), loading("the model", ModelError):
        raise KeyboardInterrupt
