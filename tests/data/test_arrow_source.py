"""Images in Arrow tables: paths that lead out or are relative, selections, processes, other types."""

from __future__ import annotations

import hashlib
import pickle
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, Features, Image

from arrow_tables import no_network, table  # noqa: F401  (autouse)
from gpt4image.base.errors import DataError
from gpt4image.data import load_image_set
from loaded_sets import Png


def test_paths_in_a_table_cannot_lead_out(tmp_path: Path, png: Png) -> None:
    (tmp_path / "secret.png").write_bytes(png(9))
    rows = [{"bytes": png(0), "path": None}, {"bytes": None, "path": str(tmp_path / "secret.png")}]
    data = Dataset.from_dict({"image": rows}, features=Features({"image": Image()}))
    (tmp_path / "set").mkdir()
    pq.write_table(data.data.table, tmp_path / "set" / "train.parquet")  # `datasets` itself would embed the file
    images = load_image_set(f"hf:{tmp_path / 'set'}")
    assert len(images) == 1
    assert "leads out" in images.skipped[0].reason


def test_a_selection_saved_to_disk(tmp_path: Path, png: Png) -> None:
    data = table({"image": [png(i) for i in range(6)]}, image=Image()).select([4, 1])
    data.save_to_disk(tmp_path / "set")
    images = load_image_set(f"hf:{tmp_path / 'set'}")
    assert [images.read(i) for i in range(2)] == [png(4), png(1)]


def test_a_worker_process_maps_the_files_itself(tmp_path: Path, png: Png) -> None:
    data = table({"image": [png(i, side=100) for i in range(40)]}, image=Image())
    data.save_to_disk(tmp_path / "set")
    images = load_image_set(f"hf:{tmp_path / 'set'}")
    assert images.read(7) == png(7, side=100)
    pickled = pickle.dumps(images.source)
    assert len(pickled) < 40_000
    shutil.rmtree(tmp_path / "hf-cache", ignore_errors=True)
    assert pickle.loads(pickled).read(7) == png(7, side=100)  # noqa: S301


@pytest.mark.parametrize("content", ["text", 1])
def test_a_struct_of_other_types_is_no_image(tmp_path: Path, content: object) -> None:
    pq.write_table(pa.table({"image": [{"bytes": content, "path": "a.png"}]}), tmp_path / "set.parquet")
    with pytest.raises(DataError, match=r"no column of train holds images; .*'bytes' \(binary\) and 'path' \(text\)"):
        load_image_set(f"hf:{tmp_path / 'set.parquet'}")


def test_reasons_are_given_where_no_row_is_left(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [{"bytes": None, "path": "/x.png"}]}), tmp_path / "set.parquet")
    with pytest.raises(DataError, match=r"none of its 1 rows .* The first: 'train/0000000 has no bytes, and its path"):
        load_image_set(f"hf:{tmp_path / 'set.parquet'}")


def test_a_relative_path_starts_at_the_set(tmp_path: Path, png: Png, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed, folder in enumerate(("set", "elsewhere")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.png").write_bytes(png(seed))
    names = ["a.png", "../elsewhere/a.png"]
    pq.write_table(
        pa.table({"image": [{"bytes": None, "path": name} for name in names]}), tmp_path / "set" / "set.parquet"
    )
    monkeypatch.chdir(tmp_path / "elsewhere")
    images = load_image_set("hf:../set/set.parquet")
    assert [images.read(i) for i in range(len(images))] == [png(0)]
    assert images.digests == (hashlib.sha256(png(0)).hexdigest(),)
    assert "leads out" in images.skipped[0].reason
