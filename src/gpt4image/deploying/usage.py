"""Code for a model card: how an exported model is used without gpt4image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gpt4image.data.decode import centre_start
from gpt4image.data.video import FrameOrder
from gpt4image.deploying.exported_model import ExportedModel
from gpt4image.deploying.metadata import EXTRA_FILE, ONNX_KEY
from gpt4image.deploying.preprocessing import Preprocessing
from gpt4image.deploying.timm_folder import needs_small_stem
from gpt4image.tasks.thresholds import USUAL

_TIMM = """\
import numpy as np
import timm
import torch
from PIL import Image, ImageOps
{imports}
{picture}
square = ImageOps.fit(picture, (min(picture.size), min(picture.size)), Image.Resampling.BICUBIC)  # its centre
model = timm.create_model({where}, pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
images = transform(square)[None]
with torch.inference_mode():
    probabilities = model(images){activation}[0].tolist()
classes = model.pretrained_cfg["label_names"]
{result}"""

_FROM_HUB = """\
from huggingface_hub import hf_hub_download

folder = os.path.dirname(hf_hub_download({repository!r}, "small_stem.py"))
"""
_SMALL_STEM = """\
sys.path.insert(0, folder)
import small_stem  # makes the model known to timm
"""

# Upright, and on white where it is transparent: as in training.
_PICTURE = """\
picture = ImageOps.exif_transpose(Image.open("picture.jpg"))
if picture.mode.startswith("I"):  # 16 bits a pixel
    picture = Image.fromarray((np.asarray(picture) / 257).round().astype(np.uint8))
picture = picture.convert("RGBA")
picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")"""

_SQUARE = """\
side = min(picture.size)
left, top = (picture.width - side) / 2, (picture.height - side) / 2
square = picture.resize(({resize}, {resize}), Image.Resampling.{filter}, box=(left, top, left + side, top + side))
images = np.asarray(square{crop}, np.float32).transpose(2, 0, 1)[None] / 255"""

# Upright frames, from the middle of equal parts of the clip.
_CLIP = """\
with av.open("clip.mp4") as container:
    count = sum(1 for _ in container.decode(video=0))
    {places}
    container.seek(0)
    kept = {{}}
    for number, frame in enumerate(container.decode(video=0)):
        if number in places:
            kept[number] = Image.fromarray(frame.to_ndarray(format="rgb24")).rotate(frame.rotation, expand=True)
images = []
for picture in (kept[place] for place in places):
    {square}
    images.append(image[0])
images = np.stack(images)[None]"""

_EVENLY = "places = [(2 * part + 1) * count // {twice} for part in range({frames})]"
_SHUFFLED = """
    with open("clip.mp4", "rb") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
    places = [places[part] for part in np.random.default_rng(int.from_bytes(digest[:8])).permutation({frames})]"""
_PLACES: Mapping[FrameOrder, str] = {
    "kept": _EVENLY,
    "shuffled": _EVENLY + _SHUFFLED,
    "still": "places = [count // 2] * {frames}",
}

_STRETCHED = """\
square = picture.resize(({resize}, {resize}), Image.Resampling.{filter})  # boxes and masks are of this square
images = np.asarray(square{crop}, np.float32).transpose(2, 0, 1)[None] / 255"""

_ONNX = """\
import json

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession({where!r}, providers=["CPUExecutionProvider"])
{picture}
{square}
{output} = session.run(None, {{"images": images}})[0][0].tolist()
classes = json.loads(session.get_modelmeta().custom_metadata_map["{key}"])["classes"]
{result}"""

_TORCH_EXPORT = """\
import json

import numpy as np
import torch
from PIL import Image, ImageOps

extra = {{"{key}": ""}}
model = torch.export.load({where!r}, extra_files=extra).module()
{picture}
{square}
{output} = model(torch.from_numpy(images))[0].tolist()
classes = json.loads(extra["{key}"])["classes"]
{result}"""

_BEST = "print(classes[probabilities.index(max(probabilities))])"
_BOXES = """\
for left, top, right, bottom, score, number in boxes:  # the best first
    if score >= 0.3:
        corners = left * picture.width, top * picture.height, right * picture.width, bottom * picture.height
        print(classes[int(number)], round(score, 2), [round(side) for side in corners])"""
_MASK = "print({classes[number] for row in mask for number in row})"
_PRESENT = """\
thresholds = {thresholds}  # per class, for the best F1
print([name for name, value, least in zip(classes, probabilities, thresholds) if value >= least])"""


def example(exported: ExportedModel, form: str, *, path: Path, repository: str | None) -> str:
    """Return Python code that predicts ``picture.jpg``, or ``clip.mp4``, and leaves ``classes`` and what the task
    predicts.

    It runs from any folder: ``path`` is where the folder or file will be. timm loads its format from the
    ``repository`` on the hub, if there is one.
    """
    where = str(path.absolute())
    task = exported.model.task
    exclusive, output = task.exclusive, task.output
    present = _PRESENT.format(thresholds=list(task.thresholds or [USUAL] * len(exported.classes)))
    result = {"boxes": _BOXES, "mask": _MASK}.get(output, _BEST if exclusive else present)
    if form == "timm":
        own_stem = needs_small_stem(exported)
        imports, model = f"\nfolder = {where!r}  # of this card\n", 'f"local-dir:{folder}"'
        if repository is not None:
            imports, model = _FROM_HUB.format(repository=repository) if own_stem else "", repr(f"hf-hub:{repository}")
        head = f"import os\nimport sys\n\n{_TIMM}" if own_stem else _TIMM
        imports += _SMALL_STEM if own_stem else ""
        activation = ".softmax(dim=1)" if exclusive else ".sigmoid()"
        return head.format(imports=imports, where=model, picture=_PICTURE, activation=activation, result=result)
    template, key = (_ONNX, ONNX_KEY) if form == "onnx" else (_TORCH_EXPORT, EXTRA_FILE)
    how = exported.preprocessing
    if not how.frames:
        return template.format(
            where=where, key=key, picture=_PICTURE, square=_square(how), result=result, output=output
        )
    template = template.replace("import numpy as np\n", "import av\nimport numpy as np\n").replace("{picture}\n", "")
    if how.frame_order == "shuffled":
        template = template.replace("import json\n", "import hashlib\nimport json\n")
    code = template.format(where=where, key=key, square=_clip(how), result=result, output=output)
    return code.replace("Image, ImageOps", "Image")


def _clip(how: Preprocessing) -> str:
    square = _square(how).replace("images =", "image =").replace("\n", "\n    ")
    places = _PLACES[how.frame_order].format(frames=how.frames, twice=2 * how.frames)
    return _CLIP.format(places=places, square=square)


def _square(how: Preprocessing) -> str:
    start = centre_start(how.resize, how.size)
    crop = f".crop(({start}, {start}, {start + how.size}, {start + how.size}))" if how.resize > how.size else ""
    return (_SQUARE if how.fit == "crop" else _STRETCHED).format(
        resize=how.resize, filter=how.interpolation.upper(), crop=crop
    )
