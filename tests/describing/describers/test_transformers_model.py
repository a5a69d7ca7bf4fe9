"""A model on this machine: the same answers as alone, whatever the batch, the memory, the neighbours or the server."""

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, LlavaForConditionalGeneration

from gpt4image.artifacts.store import Prompt
from gpt4image.base.errors import ConfigError, DescriberError
from gpt4image.config import DescriberOptions
from gpt4image.data.decode import decode
from gpt4image.describing.describers import transformers_model
from gpt4image.describing.describers.base import Answer, Request
from gpt4image.describing.describers.registry import load_describer
from gpt4image.describing.describers.transformers_model import TransformersDescriber
from tiny_vlm import TEMPLATE, make_tiny_vlm
from worlds import encoded


@pytest.fixture(scope="session")
def tiny_vlm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the model; it takes a tenth of a second to make, so that each test process makes its own."""
    return make_tiny_vlm(tmp_path_factory.mktemp("model") / "tiny-vlm")


QUESTION = "Describe this image in detail."
generate = LlavaForConditionalGeneration.generate


@pytest.fixture(autouse=True)
def in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    """There every answer is the same alone and in a batch, to the last word."""
    monkeypatch.setattr(transformers_model, "computes_bf16", lambda _: False)


def noise(seed: int) -> bytes:
    return encoded(Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8)))


COLOURS = ("red", "green", "blue", "white", "black", "orange", "purple")
PICTURES = [*(encoded(Image.new("RGB", (64, 48), colour)) for colour in COLOURS), noise(0), noise(1)]


def request(data: bytes, question: str = QUESTION, read: Callable[[], bytes] | None = None) -> Request:
    digest, prompt = hashlib.sha256(data).hexdigest(), Prompt("asked", 1, question, class_conditioned=False)
    given: Any = {"prompt": prompt, "question": question, "read": read or (lambda: data)}
    return Request(digest=digest, keys=(f"{digest[:8]}.png",), **given)


def describer(model: Path, **options: Any) -> TransformersDescriber:
    asked = {"max_tokens": 48, **options}
    made = load_describer(DescriberOptions(describer=f"transformers:{model}", **asked))
    assert isinstance(made, TransformersDescriber)
    return made


def answers(made: TransformersDescriber, requests: Sequence[Request]) -> list[Answer]:
    return [answer for group in made.describe(requests) for answer in group]


def texts(made: TransformersDescriber, requests: Sequence[Request]) -> dict[str, str | None]:
    return {answer.request.digest: answer.text for answer in answers(made, requests)}


Hold = Callable[[Callable[[list[int]], Any]], list[int]]


@pytest.fixture
def hold(monkeypatch: pytest.MonkeyPatch) -> Hold:
    """Call a function with the sizes of the batches before each; return their sizes."""

    def held(before: Callable[[list[int]], Any]) -> list[int]:
        sizes: list[int] = []

        def bounded(self: Any, **inputs: Any) -> Any:
            sizes.append(len(inputs["input_ids"]))
            before(sizes)
            return generate(self, **inputs)

        monkeypatch.setattr(LlavaForConditionalGeneration, "generate", bounded)
        return sizes

    return held


def out_of_memory() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")


def too_large() -> None:
    torch.empty(2**60, dtype=torch.uint8)  # The error of the CPU's own allocator.


def alone(processor: Any, network: Any, data: bytes, question: str) -> tuple[str, int, int]:
    """What the model says to one image without any of our code: its text, tokens in and tokens out."""
    content = [{"type": "image", "image": decode(data)}, {"type": "text", "text": question}]
    options: Any = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, **options
    )
    width = inputs["input_ids"].shape[1]
    new = network.generate(**inputs, max_new_tokens=48)[0, width:]
    return processor.decode(new, skip_special_tokens=True), width, len(new)


def test_answers_each_image_as_the_model_does_alone_whatever_stands_beside_it(tiny_vlm: Path) -> None:
    questions = [QUESTION, "What is this?", f"{QUESTION} Name each colour, each shape and the place of all things."]
    requests = [request(data, questions[number % 3]) for number, data in enumerate(PICTURES)]
    found = answers(describer(tiny_vlm, system="", batch_size=4), requests)
    assert [answer.request for answer in found] == requests
    processor = AutoProcessor.from_pretrained(tiny_vlm)
    network = AutoModelForImageTextToText.from_pretrained(tiny_vlm, dtype=torch.float32)
    for answer, data in zip(found, PICTURES, strict=True):
        text, tokens_in, tokens_out = alone(processor, network, data, answer.request.question)
        assert (answer.text, answer.tokens_in, answer.tokens_out) == (text, tokens_in, tokens_out)
        assert answer.finish_reason == ("length" if tokens_out == 48 else "stop")
        assert answer.error is None and answer.cost_usd == 0.0 and answer.latency_s is not None
    assert {answer.finish_reason for answer in found} == {"length", "stop"}
    assert len({answer.text for answer in found}) > 5
    (told,) = answers(describer(tiny_vlm, system="You describe."), requests[:1])
    assert (told.tokens_in or 0) > (found[0].tokens_in or 0), "the system message is part of the question"


def test_drawn_answers_differ_and_a_second_run_brings_the_same(tiny_vlm: Path) -> None:
    requests = [request(data) for data in PICTURES[:3]]
    made = describer(tiny_vlm, temperature=1.5)
    before = torch.random.get_rng_state()
    first = texts(made, requests)
    assert torch.equal(torch.random.get_rng_state(), before), "the random state of others is left alone"
    assert not made.repeatable and len(first) == len(set(first.values())) == 3
    assert texts(describer(tiny_vlm, temperature=1.5), requests) == first
    assert texts(made, requests) != first, "asked again in the same run, another try is wanted"


def test_an_image_that_cannot_be_read_or_asked_about_costs_no_other(tiny_vlm: Path) -> None:
    def missing() -> bytes:
        raise FileNotFoundError(2, "No such file or directory")

    good = [request(data) for data in PICTURES[:4]]
    bad = [request(b"no image"), request(b"gone", read=missing)]
    refused = request(PICTURES[5], "Is <image> one image or two?")
    asked = [good[0], bad[0], good[1], bad[1], good[2], refused, good[3]]
    found = answers(describer(tiny_vlm, batch_size=3), asked)
    reasons = {answer.request.digest: answer.error for answer in found if answer.error}
    assert "the model does not take this image" in (reasons.pop(refused.digest) or "")
    assert reasons == {
        bad[0].digest: "cannot be decoded: not an image, or damaged at its start",
        bad[1].digest: "cannot be read: No such file or directory",
    }
    kept = {answer.request.digest: answer.text for answer in found if not answer.error}
    assert kept == texts(describer(tiny_vlm), good)


@pytest.mark.parametrize("full", [out_of_memory, too_large])
def test_a_full_memory_halves_the_batch(tiny_vlm: Path, hold: Hold, full: Callable[[], None]) -> None:
    requests = [request(data) for data in PICTURES]
    whole = texts(describer(tiny_vlm, max_tokens=12), requests)
    batches = hold(lambda sizes: sizes[-1] > 2 and full())
    made = describer(tiny_vlm, batch_size=8, max_tokens=12)
    assert texts(made, requests) == whole and batches == [8, 4, 2, 2, 2, 2, 1]
    assert made.report(None).facts == {"batch_size_used": 2}  # type: ignore[arg-type]


def test_a_model_that_fails_stops_the_run_and_keeps_what_came(tiny_vlm: Path, hold: Hold) -> None:
    def fails_later(sizes: list[int]) -> None:
        if len(sizes) > 1:
            raise RuntimeError("CUDA error: device-side assert triggered\nmore lines")

    hold(fails_later)
    kept: list[Answer] = []
    with pytest.raises(DescriberError, match=r"the model failed: CUDA error: device-side assert triggered$"):
        for group in describer(tiny_vlm, batch_size=2).describe([request(data) for data in PICTURES]):
            kept.extend(group)
    assert len(kept) == 2


REFUSES_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
SKIPS_SYSTEM = TEMPLATE.replace("for message in messages", "for message in messages if message['role'] != 'system'")


@pytest.mark.parametrize(
    ("template", "system", "message"),
    [
        (REFUSES_SYSTEM + TEMPLATE, "Be brief.", r"does not take the question \(System role .*; try --system ''"),
        (
            SKIPS_SYSTEM,
            "Be brief.",
            r"does not take the question \(it leaves out the system message\); try --system ''",
        ),
        ("{{ messages[0]['content'] + 1 }}", "", "does not take the question"),
        (None, "", "it has no chat template"),
    ],
)
def test_a_template_that_cannot_ask_stops_the_run(
    tmp_path: Path, template: str | None, system: str, message: str
) -> None:
    model = make_tiny_vlm(tmp_path / "model", template=template)
    with pytest.raises(ConfigError, match=message):
        answers(describer(model, system=system), [request(PICTURES[0])])
    if system:
        assert answers(describer(model, system=""), [request(PICTURES[0])])[0].text


def test_models_that_cannot_be_used_are_refused(tiny_vlm: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^transformers:/nowhere/model: there is no folder '/nowhere/model'; give"):
        describer(Path("/nowhere/model"))
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="--device cuda is not available here"):
            describer(tiny_vlm, device="cuda")
    model = Path(shutil.copytree(tiny_vlm, tmp_path / "model"))
    (model / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(DescriberError, match="cannot be loaded as an image-text-to-text model"):
        answers(describer(model), [request(PICTURES[0])])
    for content, reason in (('{"model_type": "bert"}', "bert is no image-text-to-text"), ("[1, 2", "read as JSON")):
        (model / "config.json").write_text(content)
        with pytest.raises(ConfigError, match=reason):
            describer(model)
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="pickled weights are never loaded"):
        describer(model)


def test_identity_changes_with_every_option_that_changes_the_text_and_no_other(tiny_vlm: Path) -> None:
    before = describer(tiny_vlm).settings
    assert before["kind"] == "transformers" and before["model"] == "tiny-vlm"
    assert json.loads(json.dumps(before)) == before
    texts: Any = {"system": "", "temperature": 0.5, "max_tokens": 1, "max_side": 32}
    texts |= {"frames": 4, "contact_sheet": True}
    speed: Any = {"batch_size": 1, "device": "cpu", "detail": "low", "image_format": "png", "concurrency": 1}
    options = {**texts, **speed}
    changed = {name for name, value in options.items() if describer(tiny_vlm, **{name: value}).settings != before}
    assert changed == texts.keys()


def test_identity_is_the_content_of_the_folder_not_its_place(tiny_vlm: Path, tmp_path: Path) -> None:
    before = describer(tiny_vlm).settings
    moved = Path(shutil.copytree(tiny_vlm, tmp_path / "elsewhere" / "tiny-vlm"))
    (moved / "README.md").write_text("Another read-me.")
    assert describer(moved).settings == before
    for name in ("model.safetensors", "chat_template.jinja", "tokenizer.json"):
        content = (moved / name).read_bytes()
        (moved / name).write_bytes(content[:-2] + bytes([content[-2] ^ 1]) + content[-1:])
        assert describer(moved).settings["fingerprint"] != before["fingerprint"]
        (moved / name).write_bytes(content)
    assert describer(moved).settings == before
