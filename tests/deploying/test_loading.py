"""Every format is the same classifier that sees the same pixels, and what is none is refused with a reason."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from timm.models import save_for_hf
from torch import Tensor

from gpt4image import cli
from gpt4image.artifacts import runs
from gpt4image.base.errors import ConfigError, Gpt4ImageError, ModelError, RunError
from gpt4image.base.files import read_json, write_json
from gpt4image.data.decode import decode_square
from gpt4image.deploying.loading import ONNX_KEY, Metadata, load_classifier
from gpt4image.deploying.preprocessing import Preprocessing, as_images
from gpt4image.training.augment import Augmentation, eval_batch
from trained_runs import rewrite_config
from worlds import encoded

HOW = Preprocessing(size=32, resize=36, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def foreign(folder: Path, **config: Any) -> Path:
    """Return a folder that timm itself wrote for a model of somebody else, its config.json changed."""
    model = timm.create_model("test_resnet", num_classes=7)
    save_for_hf(model, folder, model_config={"num_classes": 7}, safe_serialization=True)
    known = read_json(folder / "config.json")
    expects = known["pretrained_cfg"] | config.pop("pretrained_cfg", {})
    write_json(folder / "config.json", known | {"pretrained_cfg": expects} | config)
    return folder


def test_a_timm_folder_of_somebody_else_is_loaded_as_timm_loads_it(tmp_path: Path) -> None:
    folder = foreign(tmp_path / "theirs")
    classifier = load_classifier(folder)
    assert classifier.classes == tuple("0123456"), "it has no names"
    size = classifier.preprocessing.size
    images = np.random.default_rng(0).random((2, 3, size, size), dtype=np.float32)
    theirs = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    with torch.inference_mode():
        expected = theirs(classifier.preprocessing.normalised(torch.from_numpy(images))).softmax(1).numpy()
    np.testing.assert_allclose(classifier.probabilities(images), expected, atol=1e-6)
    named = foreign(tmp_path / "named", label_names=list("abcdefg"))
    assert load_classifier(named).classes == tuple("abcdefg")
    by_number = foreign(tmp_path / "by-number", label_names={"1": "b", "0": "a", "6": "g"})
    assert load_classifier(by_number).classes == ("a", "b", "2", "3", "4", "5", "g")


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"pretrained_cfg": {"crop_mode": "border"}}, "crop_mode 'border'"),
        ({"architecture": "resnet_of_tomorrow"}, "'resnet_of_tomorrow' is not a model of timm"),
        ({"model_args": {"checkpoint_path": "evil.pth"}}, "checkpoint_path"),
        ({"model_args": {"pretrained_cfg_overlay": {"file": "evil.pth"}}}, "pretrained_cfg_overlay"),
        ({"model_args": {"act_layer": "/etc/passwd"}}, "act_layer = '/etc/passwd' is not allowed"),
        ({"model_args": {"act_layer": ["relu", {"file": "x"}]}}, "act_layer = .* is not allowed"),
        ({"model_args": {"stem_width": 10**400}}, "an integer of more than 64 bits"),
        ({"model_args": {"channels": [100_000] * 4}}, "they do not belong together"),
        ({"architecture": "local-dir:/tmp/other"}, "is not a model of timm"),
        ({"architecture": "small_stem_resnet", "model_args": {"base": "local-dir:x", "stride": 1}}, "not allowed"),
        ({"architecture": "small_stem_resnet", "model_args": {"base": "x", "stride": 1}}, "name of a ResNet of timm"),
        ({"model_args": [1]}, r"config\.json: architecture must be the name of a model of timm, model_args a table"),
        ({"label_names": 3}, "label_names must be a list or a table of names, not 3"),
        ({"pretrained_cfg": {"crop_pct": "x"}}, r"What the model says of its pictures is damaged .*config\.json"),
        ({"label_names": ["one"]}, r"output of shape \(1, 7\) for 1 images.* names 1 classes"),
    ],
    ids=str,
)
def test_timm_folders_that_cannot_be_used_say_why(tmp_path: Path, config: dict[str, Any], reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        load_classifier(foreign(tmp_path / "theirs", **config))


def test_other_places_of_weights_in_a_timm_folder_are_not_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = foreign(tmp_path / "theirs")
    places = {"file": "evil.pth", "hf_hub_id": "me/evil", "source": "hf-hub", "url": "https://x", "custom_load": True}
    monkeypatch.setattr("torch.load", lambda *_, **__: pytest.fail("torch unpickles"))
    for loader in ("load_state_dict", "load_state_dict_from_hf", "load_state_dict_from_path", "load_custom_from_hf"):
        monkeypatch.setattr(f"timm.models._builder.{loader}", lambda *_, **__: pytest.fail("timm opens weights"))
    known = read_json(folder / "config.json")
    write_json(folder / "config.json", known | {"pretrained_cfg": known["pretrained_cfg"] | places})
    assert len(load_classifier(folder).classes) == 7

    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"has no model\.safetensors; other weights are pickled"):
        load_classifier(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match="is no JSON"):
        load_classifier(folder)


class WritesTensor(torch.nn.Module):
    """A classifier that also writes into a tensor of four bytes."""

    def forward(self, images: Tensor) -> Tensor:
        torch.zeros(4, dtype=torch.uint8).copy_(torch.full((4,), 65, dtype=torch.uint8))
        return images.mean(dim=(2, 3)).softmax(dim=1)


def write_evil_archive(path: Path, victim: Path) -> None:
    """Write a .pt2 file whose program writes into the file ``victim`` by operators of torch.ops.aten alone."""
    program = torch.export.export(WritesTensor(), (torch.zeros(1, 3, 32, 32),))
    node = next(node for node in program.graph.nodes if "zeros" in str(node.target))
    node.target, node.args = torch.ops.aten.from_file.default, (str(victim), True, 4)
    node.kwargs = {"dtype": torch.uint8}
    program._example_inputs = None
    metadata = Metadata(classes=tuple("abc"), preprocessing=HOW).to_json()
    torch.export.save(program, path, extra_files={"gpt4image.json": metadata})


def test_a_torch_export_archive_is_never_loaded_because_it_can_write_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    victim = tmp_path / "victim"
    archive = tmp_path / "model.pt2"
    victim.write_text("safe")
    write_evil_archive(archive, victim)
    Image.new("RGB", (32, 32)).save(tmp_path / "picture.png")
    assert cli.main(["predict", str(archive), str(tmp_path / "picture.png")]) == 2
    assert victim.read_text() == "safe"
    said = capsys.readouterr().err
    assert "torch.export.load runs what its maker wants" in said and "--format timm or onnx" in said


def test_what_is_no_model_is_said(small_run: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        load_classifier(tmp_path / "none.onnx")
    (tmp_path / "model.h5").touch()
    with pytest.raises(ModelError, match="is no run folder, no folder that `gpt4image export`"):
        load_classifier(tmp_path / "model.h5")
    with pytest.raises(RunError, match="holds no finished run"):
        load_classifier(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"no protobuf")
    with pytest.raises(ModelError, match="cannot be loaded by onnxruntime"):
        load_classifier(tmp_path / "model.onnx")
    with pytest.raises(ConfigError, match="--device cuda is for run folders"):
        load_classifier(tmp_path / "model.onnx", device="cuda")
    with pytest.raises(ConfigError, match="is not available here"):
        load_classifier(small_run, device="tpu")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"model": "local-dir:{}"}, "is not a model of timm"),
        ({"model": "small_stem_resnet", "model_args": {"base": "local-dir:{}", "stride": 1}}, "is not allowed"),
        ({"model": "resnet10t.{}"}, "is not a model of timm"),
        ({"model_args": {"pretrained_cfg": {"file": "{}/weights.pth"}}}, "pretrained_cfg"),
        ({"model_args": {"pretrained_custom": "{}"}}, "pretrained_custom"),
        ({"model_args": {"act_layer": "{}/x"}}, "act_layer = .* is not allowed"),
        ({"model_args": {"stem_width": 100_000}}, "they do not belong together"),
        ({"image_size": 100_000}, "image_size"),
    ],
    ids=str,
)
def test_a_run_folder_names_models_of_timm_and_plain_arguments_alone(
    small_run: Path, tmp_path: Path, options: dict[str, Any], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, other = Path(shutil.copytree(small_run, tmp_path / "run")), tmp_path / "other"
    other.mkdir()
    options = json.loads(json.dumps(options).replace("{}", str(other)))
    rewrite_config(run, read_json(run / runs.CONFIG) | options)
    for opener in ("load_model_config_from_path", "load_model_config_from_hf"):
        monkeypatch.setattr(f"timm.models._factory.{opener}", lambda *_, **__: pytest.fail("timm opens another place"))
    monkeypatch.setattr("torch.load", lambda *_, **__: pytest.fail("torch unpickles"))
    with pytest.raises(Gpt4ImageError, match=reason):
        load_classifier(run)


def onnx_file(path: Path, text: str | None, side: int = 32, batch: int | str = "n", rows: int | None = None) -> Path:
    """Write an ONNX file that gives two equal probabilities for any image of 3 x side x side, by the means of it.

    It takes ``batch`` images, and gives only the first ``rows``.
    """
    onnx = pytest.importorskip("onnx", reason="pip install 'gpt4image[onnx]'")
    make = onnx.helper
    image = make.make_tensor_value_info("images", onnx.TensorProto.FLOAT, [batch, 3, side, side])
    output = make.make_tensor_value_info("probabilities", onnx.TensorProto.FLOAT, ["n", 2])
    weights = make.make_tensor("weights", onnx.TensorProto.FLOAT, [3, 2], [0.0] * 6)
    nodes = [
        make.make_node("ReduceMean", ["images", "axes"], ["means"], keepdims=0),
        make.make_node("MatMul", ["means", "weights"], ["logits"]),
        make.make_node("Softmax", ["logits"], ["all"], axis=1),
        make.make_node("Slice", ["all", "start", "end"], ["probabilities"]),
    ]
    ends = [
        make.make_tensor(name, onnx.TensorProto.INT64, [1], [value])
        for name, value in (("start", 0), ("end", rows or 999))
    ]
    axes = make.make_tensor("axes", onnx.TensorProto.INT64, [2], [2, 3])
    graph = make.make_graph(nodes, "classifier", [image], [output], [weights, axes, *ends])
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 18)], ir_version=9)
    if text is not None:
        model.metadata_props.add(key=ONNX_KEY, value=text)
    onnx.save(model, path)
    return path


@pytest.mark.skipif(sys.platform == "win32", reason="links of POSIX")
def test_an_onnx_file_reads_no_other_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx = pytest.importorskip("onnx", reason="pip install 'gpt4image[onnx]'")
    folder, outside = tmp_path / "model", tmp_path / "outside.bin"
    folder.mkdir()
    np.zeros(6, np.float32).tofile(outside)
    (folder / "link.bin").symlink_to(outside)
    np.zeros(6, np.float32).tofile(folder / "beside.bin")
    monkeypatch.chdir(folder)
    file = onnx_file(folder / "model.onnx", Metadata(classes=("a", "b"), preprocessing=HOW).to_json())
    for place in ("../outside.bin", str(outside), "link.bin", "beside.bin", str(folder / "beside.bin")):
        model = onnx.load(file, load_external_data=False)
        weights = next(tensor for tensor in model.graph.initializer if tensor.name == "weights")
        for field in ("float_data", "raw_data", "external_data"):
            weights.ClearField(field)
        weights.data_location = onnx.TensorProto.EXTERNAL
        weights.external_data.add(key="location", value=place)
        file.write_bytes(model.SerializeToString())
        with pytest.raises(ModelError, match=r"(?s)cannot be loaded by onnxruntime.* save the model as one file"):
            load_classifier(file)


@pytest.mark.parametrize(
    "header",
    [b"[" * 100_000, b'{"__metadata__": {"state": "' + b"[" * 100_000 + b'"}}', bytes([255]), b"{}" + b" " * 8],
    ids=["nested", "state nested", "no UTF-8", "empty"],
)
def test_a_hostile_header_of_weights_is_named(small_run: Path, tmp_path: Path, header: bytes) -> None:
    run = Path(shutil.copytree(small_run, tmp_path / "run"))
    for length in (len(header), 2**60):
        (run / runs.MODEL).write_bytes(length.to_bytes(8, "little") + header)
        with pytest.raises(Gpt4ImageError, match=r"safetensors|header|do not belong together"):
            load_classifier(run)


@pytest.mark.parametrize("classes", [None, [], {"a": 1}, "abc", [1, 2, 3]])
def test_class_names_that_are_none_are_named(small_run: Path, tmp_path: Path, classes: Any) -> None:
    run = Path(shutil.copytree(small_run, tmp_path / "run"))
    write_json(run / runs.RUN, read_json(run / runs.RUN) | {"classes": classes})
    with pytest.raises(RunError, match=r"run\.json is damaged: its classes are no list of names"):
        load_classifier(run)


def test_an_onnx_file_must_say_what_it_takes(tmp_path: Path) -> None:
    right = Metadata(classes=("a", "b\u202e\n"), preprocessing=HOW, source={"run": "x"})
    classifier = load_classifier(onnx_file(tmp_path / "a.onnx", right.to_json()), threads=1)
    assert (classifier.classes, classifier.preprocessing) == (right.classes, HOW)
    assert classifier.probabilities(np.ones((3, 3, 32, 32), np.float32)).tolist() == [[0.5, 0.5]] * 3

    known = json.loads(right.to_json())
    how = known["preprocessing"]
    wrong = {
        "`gpt4image export` did not write it": None,
        "malformed": "{",
        "malformed .it is nested": "[" * 100_000,
        "malformed .it holds an integer": json.dumps(known | {"preprocessing": {**how, "std": [10**400] * 3}}),
        "trained with --task pretrain": json.dumps(known | {"task": "pretrain"}),
        r"malformed .preprocessing\.size: Input should be less": json.dumps(
            known | {"preprocessing": {**how, "size": 8192}}
        ),
        "malformed .preprocessing: Field required": json.dumps({"format": 1, "classes": ["a"], "source": {}}),
        r"malformed .classes\.0: ": json.dumps(known | {"classes": [1, 2]}),
        "names 3 classes": json.dumps(known | {"classes": ["a", "b", "c"]}),
        r"malformed .preprocessing\.size: ": json.dumps(known | {"preprocessing": {**how, "size": True}}),
        r"malformed .preprocessing\.std": json.dumps(known | {"preprocessing": {**how, "std": [0.2, 0.2, 0.0]}}),
        r"malformed .preprocessing\.another": json.dumps(known | {"preprocessing": {**how, "another": 1}}),
    }
    for reason, text in wrong.items():
        with pytest.raises(ModelError, match=reason):
            load_classifier(onnx_file(tmp_path / "b.onnx", text))
    with pytest.raises(ModelError, match="cannot take images of 32 x 32 pixels"):
        load_classifier(onnx_file(tmp_path / "c.onnx", right.to_json(), side=16))


@pytest.mark.parametrize(("batch", "rows"), [(1, None), ("n", 1)])
def test_a_model_that_fits_one_image_and_no_batch_is_named(tmp_path: Path, batch: int | str, rows: int | None) -> None:
    text = Metadata(classes=("a", "b"), preprocessing=HOW).to_json()
    classifier = load_classifier(onnx_file(tmp_path / "a.onnx", text, batch=batch, rows=rows))
    assert classifier.probabilities(np.ones((1, 3, 32, 32), np.float32)).tolist() == [[0.5, 0.5]]
    with pytest.raises(ModelError, match=rf"{tmp_path / 'a.onnx'} .*\b3\b"):
        classifier.probabilities(np.ones((3, 3, 32, 32), np.float32))


COLOURS: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def smooth(width: int, height: int) -> Image.Image:
    """A picture without hard edges, with other colours at each border."""
    small = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


@given(
    size=st.integers(1, 600),
    more=st.integers(0, 300),
    fit=st.sampled_from(("crop", "squash")),
    interpolation=st.sampled_from(("nearest", "bilinear", "bicubic", "lanczos")),
)
def test_settings_survive_json_and_timm(size: int, more: int, fit: Any, interpolation: str) -> None:
    how = Preprocessing(size=size, resize=size + more, fit=fit, interpolation=interpolation, **COLOURS)
    metadata = Metadata(classes=("a", "b"), preprocessing=how)
    assert Metadata.from_json(metadata.to_json(), "model.onnx") == metadata
    assert Preprocessing.from_timm(json.loads(json.dumps(how.to_timm()))) == how


@pytest.mark.parametrize("more", [0, 1, 3, 4, 5, 7])
def test_pixels_are_those_of_the_evaluation(more: int) -> None:
    data = encoded(smooth(70, 50))
    how = Preprocessing(size=20, resize=20 + more, **COLOURS)
    stored = torch.from_numpy(decode_square(data, 20 + more)).permute(2, 0, 1)[None]
    nothing: dict[str, Any] = {"flip": False, "shift": 0.0, "min_scale": 1.0, "colour": 0.0, "erase": 0.0}
    expected = eval_batch(stored, Augmentation(size=20, **nothing, **COLOURS))
    images = torch.from_numpy(as_images(how.pixels(data)[None]))
    assert torch.equal(how.normalised(images), expected)
