"""A server that others wrote answers as the same model does in this process."""

from __future__ import annotations

from pathlib import Path

from gpt4image.artifacts.store import Description, DescriptionStore
from gpt4image.config import DescribeConfig
from gpt4image.data.decode import decode
from gpt4image.describing.describe import describe
from picture_requests import noise, plain
from transformers_server import Server


def test_openai_and_transformers_write_the_same(transformers_serve: Server, tiny_vlm: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for name, data in {"red": plain("red", (200, 90)), "blue": plain("blue"), "1": noise(1), "2": noise(2)}.items():
        (photos / name).mkdir(parents=True)
        decode(data).save(photos / name / "image.png")
    (photos / "red" / "broken.png").write_bytes(b"no image")
    found = {
        describer: _described(
            DescribeConfig(
                describer=describer,
                base_url=transformers_serve.base_url,
                data=f"folder:{photos}",
                splits="train,val,test",
                store=tmp_path / f"{describer.partition(':')[0]}.db",
                prompt=("paper", "class-conditioned", "conversation"),
                temperature=0,
                max_tokens=40,
                max_side=96,
                image_format="png",  # loses nothing
                precision="fp32",
                concurrency=4,
                reject=(),
            )
        )
        for describer in (f"openai:{transformers_serve.model}", f"transformers:{tiny_vlm}")
    }
    served, local = found.values()
    assert len(served) == 3 * 4
    assert served == local
    assert len(set(served.values())) > 8, "the images must matter"


def _described(config: DescribeConfig) -> dict[tuple[str, str], tuple[str | None, str | None, int | None, int | None]]:
    outcome = describe(config)
    assert {item.name for item in outcome.skipped} == {"red/broken.png"}
    with DescriptionStore(config.store) as store:
        return {(row.digest, row.prompt.name): _said(row) for row in store.descriptions()}


def _said(row: Description) -> tuple[str | None, str | None, int | None, int | None]:
    return row.text, row.finish_reason, row.tokens_in, row.tokens_out
