"""Multimodal models in vLLM's offline engine, on this machine."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from PIL import Image

from gpt4image.base.errors import ConfigError, DescriberError, MissingExtraError, first_line
from gpt4image.config import DescriberOptions
from gpt4image.data.image_set import ImageSet
from gpt4image.describing.describers.base import Answer, Report, Request
from gpt4image.describing.describers.local.conversations import (
    BatchError,
    Reply,
    Row,
    answer_in_batches,
    messages,
    seed_of,
)
from gpt4image.describing.describers.local.model_files import find_model_files, is_greedy, local_settings
from gpt4image.describing.prices import FREE

# The engine batches by itself and runs dry at the end of a group, so groups are large; but no answer of a group is kept
# before its last one has come.
_ROWS_PER_GROUP = 512
# Arguments of the engine that change its speed and memory, not the text.
_ONLY_SPEED = (
    *("tensor_parallel_size", "pipeline_parallel_size", "gpu_memory_utilization", "cpu_offload_gb"),
    *("max_num_seqs", "max_num_batched_tokens", "enforce_eager", "disable_log_stats"),
)
_SET_HERE = ("model", "dtype", "load_format", "trust_remote_code", "limit_mm_per_prompt")
_DTYPES = {"auto": "auto", "fp32": "float32", "bf16": "bfloat16"}


class VllmDescriber:
    """A model in vLLM's engine, which is started when it is first asked."""

    price = FREE

    def __init__(self, name: str, options: DescriberOptions) -> None:
        """Find the model ``name``, a folder or a Hugging Face id.

        Raises:
            ConfigError: it is not there, needs pickled weights, or an argument of the engine is not the user's to set.
            MissingExtraError: vLLM is not installed.
        """
        if importlib.util.find_spec("vllm") is None:
            raise MissingExtraError("vllm:", "vllm")
        taken = [argument for argument in _SET_HERE if argument in options.vllm_args]
        if taken:
            raise ConfigError(f"--vllm-args: {taken[0]!r} is set by gpt4image itself; leave it out.")
        self._files = find_model_files("vllm", name)
        self._options = options
        self.repeatable = is_greedy(self._files, options)
        self._steps = 0

    @property
    def settings(self) -> Mapping[str, Any]:
        """Name and content of the model, and options that decide its texts."""
        arguments = {name: value for name, value in self._options.vllm_args.items() if name not in _ONLY_SPEED}
        settings = local_settings("vllm", self._files, self._options)
        return {**settings, "vllm_args": arguments} if arguments else settings

    def describe(self, requests: Iterable[Request]) -> Iterator[Sequence[Answer]]:
        """Yield the answers in large groups.

        Raises:
            ConfigError: the model takes no images, or its chat template no system message.
            DescriberError: the engine does not start, or fails.
        """
        _ = self._engine  # Before images are read.
        yield from answer_in_batches(requests, _ROWS_PER_GROUP, self._options.max_side, self._next_turn)

    def arrived(self) -> Sequence[Answer]:
        """A group arrives as a whole."""
        return ()

    def report(self, images: ImageSet) -> Report:
        """No facts."""
        return Report()

    def _next_turn(self, rows: Sequence[Row], answers: Sequence[Sequence[str]]) -> list[Reply]:
        errors = _vllm().exceptions
        self._steps += 1
        conversations = [
            messages(row.request.turns, _part(row.image), system=self._options.system, answers=own)
            for row, own in zip(rows, answers, strict=True)
        ]
        sampling = [self._sampling(row) for row in rows]
        try:
            return [_reply(output) for output in self._engine.chat(conversations, sampling, use_tqdm=False)]
        except (errors.VLLMClientError, ValueError) as error:
            raise BatchError(f"the model does not take this image: {first_line(error)}") from None
        except (errors.VLLMError, RuntimeError) as error:
            raise DescriberError(f"{self._files.spec}: the engine failed: {first_line(error)}") from error

    def _sampling(self, row: Row) -> Any:
        """Return the model's own sampling parameters with the user's options."""
        sampling = self._engine.get_default_sampling_params().clone()
        sampling.n = 1
        sampling.max_tokens = self._options.max_tokens
        if self.repeatable:
            sampling.temperature = 0.0
        else:
            sampling.seed = seed_of([row], self._steps)
            if self._options.temperature is not None:
                sampling.temperature = self._options.temperature
        return sampling

    @cached_property
    def _engine(self) -> Any:
        try:
            engine = _vllm().LLM(
                model=str(self._files.folder),
                dtype=_DTYPES[self._options.precision],
                load_format="safetensors",
                trust_remote_code=False,
                limit_mm_per_prompt={"image": 1},
                **self._options.vllm_args,
            )
        except (OSError, TypeError, ValueError, KeyError, ImportError, RuntimeError) as error:
            raise DescriberError(f"{self._files.spec}: vLLM cannot start with it: {first_line(error)}") from error
        # A question about a grey image shows before the first real one whether the model takes it.
        without, reason = _length_of_question(engine, "")
        if reason:
            raise ConfigError(
                f"{self._files.spec}: it takes no image and question ({reason}); use a model for images that has a "
                "chat template."
            )
        length, reason = _length_of_question(engine, self._options.system)
        if reason or (self._options.system and length == without):
            raise ConfigError(
                f"{self._files.spec}: its chat template takes no system message ({reason or 'it leaves it out'}); give "
                "--system ''."
            )
        return engine


def _vllm() -> Any:
    """Return the package with its exceptions; importing it takes seconds."""
    importlib.import_module("vllm.exceptions")
    return importlib.import_module("vllm")


def _length_of_question(engine: Any, system: str) -> tuple[int, str]:
    """Return the number of tokens of a question about a grey image, or why it is refused."""
    vllm = _vllm()
    asked = messages(["What is this?"], _part(Image.new("RGB", (64, 64), "grey")), system=system)
    try:
        output = engine.chat([asked], vllm.SamplingParams(max_tokens=1), use_tqdm=False)[0]
    except (vllm.exceptions.VLLMClientError, ValueError, TypeError, LookupError) as error:
        return 0, first_line(error)
    return len(output.prompt_token_ids), ""


def _reply(output: Any) -> Reply:
    answer = output.outputs[0]
    return Reply(
        text=answer.text,
        finish_reason=answer.finish_reason,
        tokens_in=len(output.prompt_token_ids),
        tokens_out=len(answer.token_ids),
    )


def _part(image: Image.Image) -> dict[str, Any]:
    return {"type": "image_pil", "image_pil": image}
