"""SPEC strings: what a path is taken for, options, and what is wrong with others."""

from pathlib import Path

import pytest

from gpt4image.base.errors import ConfigError, DataError
from gpt4image.data import full_spec, load_dataset
from gpt4image.data.spec import parse
from worlds import write_images


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("photos", r"folder, hf, .*manifest, masks, openmoji"),
        ("foldr:x", r"folder, hf, .* Did you mean 'folder'"),
        ("opnmoji", r"there is no such file or folder.*Did you mean 'openmoji'"),
        ("~nosuch/x", "there is no such file or folder"),
        ("notes.txt", "give a folder or a table of images"),
        ("openmoji:72", "nothing after its name"),
        ("hf:", "lacks NAME_OR_PATH"),
        ("yolo:", "lacks DIR"),
        ("masks", "'masks:' lacks DIR"),
        ("hf:x,imge=img", "of the options of hf, 'imge' is not one of: .*Did you mean 'image'"),
        ("folder:empty,label=x", "of the options of folder, 'label'"),
        ("manifest:notes.txt", "got '.txt'"),
        ("manifest:absent.csv", "there is no such file"),
        ("manifest:bad.parquet", "not a Parquet file"),
        *((f"{name}:~nosuch/x", "there is no such f") for name in ("folder", "hf")),
        ("cifar10:~nosuch/x", "does not hold the official files"),
        ("folder:linked", r"holds no image; .* The first: cat: a link to a folder"),
        ("tables", "its Parquet files are read by hf:tables"),
        ("hf:nobody/no-such-dataset", "is no local path .* the hub"),
    ],
)
def test_a_spec_that_cannot_be_loaded_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").touch()
    (tmp_path / "tables").mkdir()
    for name in ("bad", "tables/train"):
        (tmp_path / f"{name}.parquet").write_bytes(b"PAR1 no")
    for name in ("empty", "far/cat", "linked"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "linked" / "cat").symlink_to(tmp_path / "far" / "cat")
    with pytest.raises((ConfigError, DataError), match=message):
        load_dataset(spec)


def test_options_follow_what_is_read_and_may_hold_commas() -> None:
    spec = parse("hf:a,b/c,image=img,label=x,y,key=id")
    assert (spec.name, spec.where) == ("hf", "a,b/c")
    assert spec.options == {"image": "img", "label": "x,y", "key": "id"}


def test_what_is_at_a_path_decides_how_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meant = {
        "us": ("folder:us", "us/1.csv us/cat/1.png us/dog/1.png"),
        "table": ("manifest:table", "table/labels.csv table/images/1.png"),
        "one.csv,label=class": ("manifest:one.csv,label=class", "one.csv"),
        "shards": ("hf:shards", "shards/1.tar"),
        "saved": ("hf:saved", "saved/dataset_info.json"),
        "shop": ("coco:shop", "shop/train.json"),
        "coco": ("coco:coco", "coco/annotations/instances_train2017.json"),
        "robo": ("coco:robo", "robo/train/_annotations.coco.json"),
        "yolo": ("yolo:yolo", "yolo/data.yaml yolo/train/1.png"),
        "yolo/data.yaml": ("yolo:yolo/data.yaml", ""),
        "voc": ("voc:voc", "voc/Annotations/1.xml"),
        "masks": ("masks:masks", "masks/images/1.png masks/masks/1.png"),
        "films": ("clips:films", "films/left/1.mp4"),
        "plain": ("folder:plain", "plain/images/1.png plain/cat/1.png plain/notes.json"),
    }
    for name in " ".join(files for _, files in meant.values()).split():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    assert {path: full_spec(path) for path in meant} == {path: spec for path, (spec, _) in meant.items()}


def test_a_table_aside_does_not_decide_what_a_folder_is(tmp_path: Path) -> None:
    us, table = tmp_path / "us", tmp_path / "us" / "labels.csv"
    for file in ("cat/1.png", "labels.csv", "labels.images/2.mp4"):
        (us / file).parent.mkdir(parents=True, exist_ok=True)
        (us / file).touch()
    assert full_spec(str(us)) == full_spec(str(us), tmp_path / "labels.csv") == f"manifest:{us}"
    assert full_spec(str(us), table) == f"folder:{us}"


def test_a_folder_may_be_called_as_a_kind_of_dataset_or_a_packaged_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("clothes", "folder"):
        write_images(tmp_path / name, "cat/1.png", "dog/2.png")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"give \./clothes for that, clothes: for the packaged one"):
        load_dataset("clothes")
    assert load_dataset("./clothes").classes == ("cat", "dog")
    assert len(load_dataset("clothes:")) == 1722
    assert load_dataset("folder").spec == "folder:folder"
