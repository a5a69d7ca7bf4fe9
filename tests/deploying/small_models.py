"""ONNX files that answer by the colours of a picture, in the form that an export has."""

import json
from pathlib import Path
from typing import Any

import pytest

SIDE = 32
BOXES = [[0.1, 0.1, 0.5, 0.5, 0.9, 0], [0.12, 0.1, 0.5, 0.5, 0.8, 1], [0.6, 0.6, 0.9, 0.9, 0.7, 2], *[[0] * 6] * 97]
HOW = {"size": SIDE, "resize": 36, "fit": "crop", "interpolation": "bicubic", "mean": [0.0] * 3, "std": [1.0] * 3}


def small_model(folder: Path, task: str, *, share: float | None = None) -> Path:
    """Write ``model.onnx`` and ``model.json`` of a task for the classes red, green and blue.

    Probabilities grow with the mean of a channel, the mask has the strongest channel, the boxes are always BOXES. With
    ``share`` an image is known by its lightest channel, and below the share it is none of the classes.
    """
    onnx = pytest.importorskip("onnx", reason="pip install 'gpt4image[onnx]'")
    make, kind = onnx.helper, onnx.TensorProto
    output = {"detection": "boxes", "segmentation": "mask"}.get(task, "probabilities")
    nodes, weights, outputs = [make.make_node("ReduceMean", ["images", "axes"], ["means"], keepdims=0)], [], [output]
    weights.append(make.make_tensor("axes", kind.INT64, [2], [2, 3]))
    match task:
        case "classification":
            weights.append(make.make_tensor("ten", kind.FLOAT, [], [10.0]))
            nodes.append(make.make_node("Mul", ["means", "ten"], ["logits"]))
            nodes.append(make.make_node("Softmax", ["logits"], [output], axis=1))
        case "multilabel":
            nodes.append(make.make_node("Identity", ["means"], [output]))
        case "detection":
            weights.append(make.make_tensor("one", kind.FLOAT, [1, 100, 6], [side for box in BOXES for side in box]))
            weights.append(make.make_tensor("rest", kind.INT64, [2], [1, 1]))
            nodes.append(make.make_node("Shape", ["images"], ["count"], start=0, end=1))
            nodes.append(make.make_node("Concat", ["count", "rest"], ["shape"], axis=0))
            nodes.append(make.make_node("Expand", ["one", "shape"], [output]))
        case _:
            nodes.append(make.make_node("ArgMax", ["images"], ["numbers"], axis=1, keepdims=0))
            nodes.append(make.make_node("Cast", ["numbers"], [output], to=kind.UINT8))
    if share is not None:
        nodes.append(make.make_node("ReduceMax", ["means", "last"], ["known"], keepdims=0))
        weights.append(make.make_tensor("last", kind.INT64, [1], [1]))
        outputs.append("known")
    shapes = {"boxes": ["n", 100, 6], "mask": ["n", SIDE, SIDE], "probabilities": ["n", 3], "known": ["n"]}
    types = {"mask": kind.UINT8}
    graph = make.make_graph(
        nodes,
        task,
        [make.make_tensor_value_info("images", kind.FLOAT, ["n", 3, SIDE, SIDE])],
        [make.make_tensor_value_info(name, types.get(name, kind.FLOAT), shapes[name]) for name in outputs],
        weights,
    )
    decision: dict[str, Any] = {"temperature": [1.0], "thresholds": None, "score": [1.0, 0.0]}
    if task == "multilabel":
        decision["thresholds"] = [0.5, 0.2, 0.9]
    if share is not None:
        decision["reject"] = {"share": share, "neighbours": 1, "kept": 1, "width": 1}
    facts = {"classes": ["red", "green", "blue"], "preprocessing": HOW, "task": task, "decision": decision}
    folder.mkdir(parents=True, exist_ok=True)
    opset = [make.make_opsetid("", 18)]
    about = json.dumps({"format": 1, **facts, "source": {}})
    model = make.make_model(graph, opset_imports=opset, ir_version=9)
    make.set_model_props(model, {"gpt4image": about})
    onnx.save(model, folder / "model.onnx")
    (folder / "model.json").write_text(about, encoding="utf-8")
    return folder
