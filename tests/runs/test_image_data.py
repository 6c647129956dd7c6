"""The paper's data sets and the user's own, on small copies: every layout is read, and split by class."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from svmax_ops.runs.retrieval.data.images import ImageFiles
from svmax_ops.runs.retrieval.data.pictures import halves
from svmax_ops.runs.retrieval.samplers import ClassBatches
from tests.runs import trees


def names(pictures: ImageFiles) -> list[str]:
    return [os.fsdecode(name) for name in pictures.names.tolist()]


def labels(pictures: ImageFiles) -> list[int]:
    return pictures.labels.unique().tolist()


@pytest.mark.parametrize("layout", trees.LAYOUTS)
def test_every_layout_is_read_in_full_from_its_folder_and_from_the_one_around_it(tmp_path, layout):
    dataset, build = trees.LAYOUTS[layout]
    root = build(tmp_path / "around" / "it")
    data = trees.read(dataset, root)
    files = {path for path in root.rglob("*") if path.suffix.lower() == ".jpg"}
    paths = [half.path(i) for half in (data.train, data.test) for i in range(len(half.labels))]
    assert len(paths) == len(files)
    assert set(paths) == files
    assert not set(labels(data.train)) & set(labels(data.test))
    around = root.parent if "car_data" not in layout else root
    again = trees.read(dataset, around)
    assert names(again.train) == names(data.train)
    assert again.test.labels.equal(data.test.labels)


def test_cub200_trains_on_classes_1_to_100(tmp_path):
    data = trees.read("cub200", trees.cub200(tmp_path, classes=(200, 101, 100, 1)))
    assert labels(data.train) == [1, 100]
    assert labels(data.test) == [101, 200]
    for half in (data.train, data.test):
        assert [int(name.split("/")[1][:3]) for name in names(half)] == half.labels.tolist()
    assert data.recall_at == (1, 2, 4, 8)
    assert data.notes == (
        f"CUB-200-2011 from {tmp_path / 'CUB_200_2011'}: 2 classes with 6 images to train on, 2 classes with 6 images"
        " to test on",
    )


def test_cub200_joins_its_lists_by_image_and_not_by_line(tmp_path):
    root = trees.cub200(tmp_path)
    path = root / "image_class_labels.txt"
    before = trees.read("cub200", root)
    trees.lines(path, reversed(path.read_text().splitlines()))
    after = trees.read("cub200", root)
    assert names(after.train) == names(before.train)
    assert after.train.labels.equal(before.train.labels)


@pytest.mark.parametrize("build", [trees.cars196, trees.cars196_devkit])
def test_cars196_trains_on_classes_1_to_98(tmp_path, build):
    data = trees.read("cars196", build(tmp_path))
    assert labels(data.train) == [1, 2, 98]
    assert labels(data.test) == [99, 100, 196]


def test_cars196_by_class_trains_on_the_makes_before_ferrari_and_fiat(tmp_path):
    data = trees.read("cars196", trees.cars196_by_class(tmp_path, trees.CARS[::-1], images_per_class=3))
    assert {name.split("/")[1] for name in names(data.train)} == set(trees.CARS[:2])
    assert {name.split("/")[0] for name in names(data.train)} == {"train", "test"}  # both of the data set's own halves
    assert data.train.labels.bincount().tolist() == [0, 6, 6]


def test_sop_has_the_split_of_its_lists_and_its_own_recalls(tmp_path):
    data = trees.read("sop", trees.sop(tmp_path))
    assert labels(data.train) == [1, 2, 3, 11318]
    assert labels(data.test) == [11319, 11320, 22634]
    assert names(data.train)[0] == "chair_final/111000001_0.JPG"
    assert data.recall_at == (1, 8, 10, 100, 1000)


def touch(paths: Iterable[Path]) -> None:
    """Empty files: a picture is opened when it is trained on, not before."""
    folders = set()
    for path in paths:
        if path.parent not in folders:
            path.parent.mkdir(parents=True)
            folders.add(path.parent)
        os.close(os.open(path, os.O_CREAT))


def test_cub200_with_the_published_counts_passes(tmp_path):
    root = tmp_path / "CUB_200_2011"
    label_of = [i % 100 + 1 for i in range(5864)] + [i % 100 + 101 for i in range(5924)]
    paths = [f"{label:03d}.B/{i:05d}.jpg" for i, label in enumerate(label_of)]
    touch(root / "images" / path for path in paths)
    trees.lines(root / "images.txt", (f"{i} {path}" for i, path in enumerate(paths, 1)))
    trees.lines(root / "image_class_labels.txt", (f"{i} {label}" for i, label in enumerate(label_of, 1)))
    data = trees.read("cub200", root, check_counts=True)
    assert (len(data.train.labels), len(data.test.labels)) == (5864, 5924)


def test_sop_with_the_published_counts_passes_and_is_ready_to_train_on_in_seconds(tmp_path):
    root = tmp_path / "Stanford_Online_Products"
    for half, classes, images, first in (("train", 11318, 59551, 1), ("test", 11316, 60502, 11319)):
        label_of = sorted(i % classes + first for i in range(images))
        paths = [f"{half}_{label % 12}_final/111{label:09d}_{i}.JPG" for i, label in enumerate(label_of)]
        touch(root / path for path in paths)
        rows = (
            f"{i} {label} {label % 12 + 1} {path}" for i, (label, path) in enumerate(zip(label_of, paths, strict=True))
        )
        trees.lines(root / f"Ebay_{half}.txt", ["image_id class_id super_class_id path", *rows])
    begin = time.process_time()
    data = trees.read("sop", root, check_counts=True)
    batches = ClassBatches(data.train.labels, 36, 4, seed=0)
    assert time.process_time() - begin < 30  # 2; 160 if every class were looked for in every label
    assert len(batches.members) == 11318
    assert (len(data.train.labels), len(data.test.labels)) == (59551, 60502)


# A data set of the user's


def test_folder_splits_its_classes_as_strokes_are_split(tmp_path):
    classes = [f"c{i}" for i in range(7)]
    data = trees.read("folder", trees.imagefolder(tmp_path, classes, suffix=".png"))
    assert {name.split("/")[0] for name in names(data.train)} == {classes[i] for i in halves(7)[0]}
    assert {name.split("/")[0] for name in names(data.test)} == {classes[i] for i in halves(7)[1]}
    assert len(data.train.labels) == 2 * 3
    for half in (data.train, data.test):
        assert [f"c{label - 1}" for label in half.labels.tolist()] == [name.split("/")[0] for name in names(half)]


def test_folder_takes_the_split_that_its_folders_name(tmp_path, monkeypatch):
    trees.imagefolder(tmp_path / "train", ["a", "b"])
    trees.imagefolder(tmp_path / "test", ["c", "d", "e"])
    data = trees.read("folder", tmp_path)
    assert {name[:7] for name in names(data.train)} == {"train/a", "train/b"}
    assert {name[:6] for name in names(data.test)} == {"test/c", "test/d", "test/e"}
    monkeypatch.chdir(tmp_path)
    assert names(trees.read("folder", Path()).train) == names(data.train)


@pytest.mark.parametrize("given", ["the file", "its folder"])
def test_folder_reads_a_csv_file(tmp_path, given):
    trees.imagefolder(tmp_path / "files", ["a", "b", "c", "d"], suffix=".png")
    outside = tmp_path / "elsewhere.jpg"
    trees.picture(outside)
    rows = [f'"files/{name}/{i:02d}.png",{name}' for name in "abcd" for i in range(2)] + [f"{outside},d"]
    table = tmp_path / "list" / "images.csv"
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "files").symlink_to(tmp_path / "files")
    trees.lines(tmp_path / "list" / "scores.csv", ["x,y", "1,2"])  # some other table is no obstacle
    root = table if given == "the file" else table.parent
    split = {"a": "test", "b": "train", "c": "train", "d": "test"}
    trees.lines(
        table,
        ["class,note,path,split", *(f"{row.split(',')[1]},,{row.split(',')[0]},{split[row[-1]]}" for row in rows)],
    )
    data = trees.read("folder", root)
    assert names(data.train) == ["files/b/00.png", "files/b/01.png", "files/c/00.png", "files/c/01.png"]
    assert [data.test.path(i) for i in range(5)][-1] == outside
    trees.lines(table, ["path,class", *rows])
    assert labels(trees.read("folder", root).train) == sorted((halves(4)[0] + 1).tolist())
