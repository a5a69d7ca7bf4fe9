"""Describe a folder of images with bespokelabs-curator, as its users do; runs in a virtual environment of its own.

    python curator_run.py FOLDER BASE_URL CACHE --concurrency 64 --timeout 600

Prints a JSON line: seconds and CPU seconds of the call (imports are not counted), and how many answers came.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from importlib.util import find_spec
from pathlib import Path

os.environ.update(
    OPENAI_API_KEY="sk-local",
    TELEMETRY_ENABLED="false",
    CURATOR_DISABLE_RICH_DISPLAY="1",
    LITELLM_LOCAL_MODEL_COST_MAP="True",  # else litellm downloads it
    HF_HUB_OFFLINE="1",
    NO_PROXY="127.0.0.1",
)
# litellm brings the encoding that tiktoken would download.
os.environ["TIKTOKEN_CACHE_DIR"] = str(Path(find_spec("litellm").origin).parent / "litellm_core_utils" / "tokenizers")

from bespokelabs import curator
from datasets import Dataset

MANY = 100_000_000


class Describer(curator.LLM):
    def prompt(self, row: dict) -> tuple:
        return "Describe this image in detail.", curator.types.Image(url=row["path"])

    def parse(self, row: dict, response: str) -> dict:
        return {"path": row["path"], "description": response}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("base_url")
    parser.add_argument("cache")
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--timeout", type=int, default=600)
    args = parser.parse_args()
    describer = Describer(
        model_name="gpt-4o-mini",
        backend="openai",
        backend_params={
            "base_url": args.base_url,
            "max_requests_per_minute": MANY,
            "max_tokens_per_minute": MANY,
            "max_concurrent_requests": args.concurrency,
            "request_timeout": args.timeout,
        },
    )
    rows = Dataset.from_list([{"path": str(path)} for path in sorted(args.folder.rglob("*.jpg"))])
    started, cpu = time.perf_counter(), time.process_time()
    answers = describer(rows, working_dir=args.cache).dataset
    facts = {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - cpu,
        "answers": len(answers),
    }
    print(json.dumps(facts), flush=True)
