"""Models in the Hugging Face layout, and those of transformers."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from gpt4image.base.errors import ModelError
from gpt4image.encoding.text_encoders.registry import load_text_encoder
from gpt4image.models.aligner import Aligner
from gpt4image.models.backbones import compile_training, convolves, create_backbone, has_batch_norm, has_small_stem
from gpt4image.models.hugging_face import find_folder
from models.small_models import in_hub_cache


def test_a_folder_is_itself_a_hub_id_its_copy_and_what_the_hub_does_not_give_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_folder(str(tmp_path), ("*.json",)) == tmp_path
    asked: list[tuple[str, list[str]]] = []
    with monkeypatch.context() as patch:
        fetch = lambda name, allow_patterns: asked.append((name, allow_patterns)) or str(tmp_path)  # noqa: E731
        patch.setattr("huggingface_hub.snapshot_download", fetch)
        assert find_folder("owner/model", ("*.json", "*.safetensors")) == tmp_path
    assert asked == [("owner/model", ["*.json", "*.safetensors"])]
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
    with pytest.raises(
        ModelError, match=r"of resnet18 cannot be loaded: 127\.0\.0\.1 cannot be reached.*HF_HOME.*lite0 needs no"
    ):
        create_backbone("resnet18", classes=2, image_size=32, init="pretrained")
    assert constants.HF_HUB_OFFLINE is False
    copy = in_hub_cache(tmp_path, "owner/here", "config.json", "{}")
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


SEGFORMER: dict[str, Any] = {
    "model_type": "segformer", "depths": [1, 1, 1, 1], "hidden_sizes": [8, 8, 16, 16],
    "num_attention_heads": [1, 1, 2, 2], "decoder_hidden_size": 16,
}  # fmt: skip
VIT: dict[str, Any] = {
    "model_type": "vit", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 16, "patch_size": 8,
}  # fmt: skip
VIDEOMAE = VIT | {"model_type": "videomae", "num_frames": 4}


def written(folder: Path, config: dict[str, Any]) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    return f"transformers:{folder}"


@pytest.mark.parametrize(
    ("config", "task", "inputs", "outputs"),
    [
        (VIT, "classification", (3, 32, 32), (5,)),
        (SEGFORMER, "segmentation", (3, 32, 32), (5, 8, 8)),
        (VIDEOMAE, "video", (12, 32, 32), (5,)),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")  # of transformers about its own attention
def test_a_folder_gives_a_model_for_its_task_with_its_weights_but_for_other_classes(
    config: dict[str, Any], task: str, inputs: tuple[int, ...], outputs: tuple[int, ...], tmp_path: Path
) -> None:
    name = written(tmp_path / "scratch", config)
    model = create_backbone(name, classes=5, image_size=32, task=task).module.eval()
    images = torch.randn(2, *inputs)
    assert model(images).shape == (2, *outputs)
    assert Aligner(model, 7)(images)[1].shape == (2, 7)
    model.get_submodule("network").save_pretrained(tmp_path / "weights")  # type: ignore[operator]
    name = f"transformers:{tmp_path / 'weights'}"
    same, other = (
        create_backbone(name, classes=count, image_size=32, init="pretrained", task=task) for count in (5, 3)
    )
    assert same.new_layers == () and len(other.new_layers) == 1
    assert torch.equal(same.module.eval()(images), model(images))
    differ = {key for key, value in other.module.state_dict().items() if not value.equal(model.state_dict()[key])}
    assert {key.rpartition(".")[0] for key in differ} == set(other.new_layers)
    save_file(model.state_dict(), tmp_path / "run.safetensors")
    again = create_backbone(name, classes=3, image_size=32, init=str(tmp_path / "run.safetensors"), task=task)
    assert again.new_layers == other.new_layers and "other classes" in again.notes[0]


def test_weights_that_lack_more_than_the_classes_are_refused(tmp_path: Path) -> None:
    name = written(tmp_path, SEGFORMER)
    model = create_backbone(name, classes=3, image_size=32, task="segmentation").module
    model.get_submodule("network").save_pretrained(tmp_path)  # type: ignore[operator]
    options: dict[str, Any] = {"classes": 3, "image_size": 32, "init": "pretrained", "task": "segmentation"}
    with pytest.raises(ModelError, match="its weights lack"):
        create_backbone(name, **options, model_args={"hidden_sizes": [8, 8, 16, 32]})
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="its weights cannot be loaded"):
        create_backbone(name, **options)


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({}, {"image_size": 4}, "--image-size"),
        ({}, {"model_args": {"depth": 3}}, "has no 'depth'"),
        ({}, {"model_args": {"hidden_size": "wide"}}, "cannot be made"),
        ({}, {"stem": "small"}, "without --stem small"),
        ({}, {"task": "detection"}, "not boxes"),
        ({"backbone": "resnet50"}, {}, "names another model"),
        ({"auto_map": {"AutoModel": "evil.Model"}}, {}, "code that comes with a model is never run"),
    ],
)
def test_what_cannot_be_used_is_refused(
    changes: dict[str, Any], options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    name = written(tmp_path, {**VIT, **changes})
    with pytest.raises(ModelError, match=message):
        create_backbone(name, **{"classes": 3, "image_size": 32, **options})


def test_what_only_models_of_timm_have_is_refused_or_absent(tmp_path: Path) -> None:
    name = written(tmp_path, VIT)
    assert not (has_batch_norm(name) or has_small_stem(name) or convolves(name))
    model = create_backbone(name, classes=3, image_size=32).module
    with pytest.raises(ModelError, match="--compile is for models of timm"):
        compile_training(model)
    with pytest.raises(ModelError, match="no folder"):
        create_backbone("transformers:/nowhere", classes=3, image_size=32)
