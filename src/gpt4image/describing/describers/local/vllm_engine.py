"""Multimodal models in vLLM's offline engine, on this machine."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from gpt4image.base.errors import ConfigError, DescriberError, MissingExtraError, first_line
from gpt4image.config import DescriberOptions
from gpt4image.describing.describers.local.conversations import BatchError, LocalDescriber, Reply, Row, seed_of

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


class VllmDescriber(LocalDescriber):
    """A model in vLLM's engine, which is started when it is first asked."""

    kind = "vllm"

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
        super().__init__(name, options)
        self.rows_at_once = _ROWS_PER_GROUP

    @property
    def settings(self) -> Mapping[str, Any]:
        """Name and content of the model, and options that decide its texts."""
        arguments = {name: value for name, value in self.options.vllm_args.items() if name not in _ONLY_SPEED}
        return {**super().settings, "vllm_args": arguments} if arguments else super().settings

    def reply(self, rows: Sequence[Row], conversations: list[list[dict[str, Any]]], call: int) -> Sequence[Reply]:
        """Return the next answers; the engine batches them."""
        errors = _vllm().exceptions
        sampling = [self._sampling(row, call) for row in rows]
        try:
            outputs = self._engine.chat(conversations, sampling, use_tqdm=False)
        except (errors.VLLMClientError, ValueError) as error:
            raise BatchError(f"the model does not take this image: {first_line(error)}") from None
        except (errors.VLLMError, RuntimeError) as error:
            raise DescriberError(f"{self.files.spec}: the engine failed: {first_line(error)}") from error
        return [
            Reply(
                text=answer.text,
                finish_reason=answer.finish_reason,
                tokens_in=len(output.prompt_token_ids),
                tokens_out=len(answer.token_ids),
            )
            for output in outputs
            for answer in output.outputs[:1]
        ]

    def part(self, image: Image.Image) -> dict[str, Any]:
        """Return an image as a part of a message."""
        return {"type": "image_pil", "image_pil": image}

    def _sampling(self, row: Row, call: int) -> Any:
        """Return the model's own sampling parameters with the user's options."""
        sampling = self._engine.get_default_sampling_params().clone()
        sampling.n = 1
        sampling.max_tokens = self.options.max_tokens
        if row.request.schema is not None:
            params = importlib.import_module("vllm.sampling_params").StructuredOutputsParams
            sampling.structured_outputs = params(json=row.request.schema)
        if self.repeatable:
            sampling.temperature = 0.0
        else:
            sampling.seed = seed_of([row], call)
            if self.options.temperature is not None:
                sampling.temperature = self.options.temperature
        return sampling

    def load(self) -> None:
        """Start the engine."""
        spec, system = self.files.spec, self.options.system
        try:
            engine = self._engine = _vllm().LLM(
                model=str(self.files.folder),
                dtype=_DTYPES[self.options.precision],
                load_format="safetensors",
                trust_remote_code=False,
                limit_mm_per_prompt={"image": self.images_at_once},
                **self.options.vllm_args,
            )
        except (OSError, TypeError, ValueError, KeyError, ImportError, RuntimeError) as error:
            raise DescriberError(f"{spec}: vLLM cannot start with it: {first_line(error)}") from error
        without, reason = _tokens_of(engine, self.question(""))
        if reason:
            raise ConfigError(
                f"{spec}: it takes no {self.what_it_takes} ({reason}); use a model for images that has a chat template."
            )
        length, reason = _tokens_of(engine, self.question(system))
        if reason or (system and length == without):
            raise ConfigError(
                f"{spec}: its chat template takes no system message ({reason or 'it leaves it out'}); give --system ''."
            )


def _vllm() -> Any:
    """Return the package with its exceptions; importing it takes seconds."""
    importlib.import_module("vllm.exceptions")
    return importlib.import_module("vllm")


def _tokens_of(engine: Any, question: list[dict[str, Any]]) -> tuple[int, str]:
    """Return the number of tokens of a question, or why it is refused."""
    vllm = _vllm()
    try:
        output = engine.chat([question], vllm.SamplingParams(max_tokens=1), use_tqdm=False)[0]
    except (vllm.exceptions.VLLMClientError, ValueError, TypeError, LookupError) as error:
        return 0, first_line(error)
    return len(output.prompt_token_ids), ""
