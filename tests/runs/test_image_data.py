"""The paper's data sets and the user's own, on small copies: every layout is read, what is damaged is named."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from svmax_ops.runs.errors import UserError
from svmax_ops.runs.retrieval.config import RetrievalConfig
from svmax_ops.runs.retrieval.data import DATASETS
from svmax_ops.runs.retrieval.data.images import ImageFiles
from svmax_ops.runs.retrieval.data.pictures import RetrievalData, halves
from svmax_ops.runs.retrieval.samplers import ClassBatches
from tests.runs import trees

CARS = ["AM General Hummer SUV 2000", "Eagle Talon Hatchback 1998", "FIAT 500 Abarth 2012", "smart fortwo 2012"]


def read(dataset: str, root: Path | None, check_counts: bool = False) -> RetrievalData:
    return DATASETS[dataset](RetrievalConfig(dataset=dataset, root=root, check_counts=check_counts))


def refusal(dataset: str, root: Path | None, check_counts: bool = False) -> str:
    with pytest.raises(UserError) as caught:
        read(dataset, root, check_counts)
    text = str(caught.value)
    assert text.endswith(".")
    assert "\n" not in text
    return text


def names(pictures: ImageFiles) -> list[str]:
    return [os.fsdecode(name) for name in pictures.names.tolist()]


def labels(pictures: ImageFiles) -> list[int]:
    return pictures.labels.unique().tolist()


LAYOUTS: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "cub200": ("cub200", trees.cub200),
    "cars196, first published": ("cars196", trees.cars196),
    "cars196, devkit": ("cars196", trees.cars196_devkit),
    "cars196, torchvision": (
        "cars196",
        lambda root: trees.cars196_devkit(root, with_labels="devkit/cars_test_annos_withlabels.mat"),
    ),
    "cars196, Kaggle, nested": (
        "cars196",
        lambda root: trees.cars196_devkit(
            root, devkit="car_devkit/devkit", nested=True, with_labels="cars_test_annos_withlabels (1).mat"
        ),
    ),
    "cars196, Kaggle, by class": ("cars196", lambda root: trees.cars196_by_class(root, CARS)),
    "cars196, Kaggle, car_data": (
        "cars196",
        lambda root: trees.cars196_by_class(root, CARS, inside="car_data/car_data"),
    ),
    "sop": ("sop", trees.sop),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_read_in_full_from_its_folder_and_from_the_one_around_it(tmp_path, layout):
    dataset, build = LAYOUTS[layout]
    root = build(tmp_path / "around" / "it")
    data = read(dataset, root)
    files = {path for path in root.rglob("*") if path.suffix.lower() == ".jpg"}
    paths = [half.path(i) for half in (data.train, data.test) for i in range(len(half.labels))]
    assert len(paths) == len(files)
    assert set(paths) == files
    assert not set(labels(data.train)) & set(labels(data.test))
    around = root.parent if "car_data" not in layout else root
    again = read(dataset, around)
    assert names(again.train) == names(data.train)
    assert again.test.labels.equal(data.test.labels)


def test_cub200_trains_on_classes_1_to_100(tmp_path):
    data = read("cub200", trees.cub200(tmp_path, classes=(200, 101, 100, 1)))
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
    before = read("cub200", root)
    trees.lines(path, reversed(path.read_text().splitlines()))
    after = read("cub200", root)
    assert names(after.train) == names(before.train)
    assert after.train.labels.equal(before.train.labels)


@pytest.mark.parametrize("build", [trees.cars196, trees.cars196_devkit])
def test_cars196_trains_on_classes_1_to_98(tmp_path, build):
    data = read("cars196", build(tmp_path))
    assert labels(data.train) == [1, 2, 98]
    assert labels(data.test) == [99, 100, 196]


def test_cars196_by_class_trains_on_the_makes_before_ferrari_and_fiat(tmp_path):
    data = read("cars196", trees.cars196_by_class(tmp_path, CARS[::-1], images_per_class=3))
    assert {name.split("/")[1] for name in names(data.train)} == set(CARS[:2])
    assert {name.split("/")[0] for name in names(data.train)} == {"train", "test"}  # both of the data set's own halves
    assert data.train.labels.bincount().tolist() == [0, 6, 6]


def test_sop_has_the_split_of_its_lists_and_its_own_recalls(tmp_path):
    data = read("sop", trees.sop(tmp_path))
    assert labels(data.train) == [1, 2, 3, 11318]
    assert labels(data.test) == [11319, 11320, 22634]
    assert names(data.train)[0] == "chair_final/111000001_0.JPG"
    assert data.recall_at == (1, 8, 10, 100, 1000)


def test_counts_other_than_the_published_ones_are_refused(tmp_path):
    found = "3 classes with 9 images to train on, 3 classes with 9 images to test on"
    root = trees.cub200(tmp_path)
    assert refusal("cub200", root, check_counts=True) == (
        f"{root} has {found}; CUB-200-2011 has 100 classes with 5,864 images, and 100 classes with 5,924 images"
        " (--no-check-counts takes what is there)."
    )
    expected = "CARS196 has 98 classes with 8,054 images, and 98 classes with 8,131 images"
    assert expected in refusal("cars196", trees.cars196(tmp_path), check_counts=True)
    expected = "Products has 11,318 classes with 59,551 images, and 11,316 classes with 60,502 images"
    assert expected in refusal("sop", trees.sop(tmp_path), check_counts=True)


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
    data = read("cub200", root, check_counts=True)
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
    begin = time.perf_counter()
    data = read("sop", root, check_counts=True)
    batches = ClassBatches(data.train.labels, 36, 4, seed=0)
    assert time.perf_counter() - begin < 30  # 3 on a busy machine; 160 if every class were looked for in every label
    assert len(batches.members) == 11318
    assert (len(data.train.labels), len(data.test.labels)) == (59551, 60502)


# A data set of the user's


def test_folder_splits_its_classes_as_strokes_are_split(tmp_path):
    classes = [f"c{i}" for i in range(7)]
    data = read("folder", trees.imagefolder(tmp_path, classes, suffix=".png"))
    assert {name.split("/")[0] for name in names(data.train)} == {classes[i] for i in halves(7)[0]}
    assert {name.split("/")[0] for name in names(data.test)} == {classes[i] for i in halves(7)[1]}
    assert len(data.train.labels) == 2 * 3
    for half in (data.train, data.test):
        assert [f"c{label - 1}" for label in half.labels.tolist()] == [name.split("/")[0] for name in names(half)]


def test_folder_takes_the_split_that_its_folders_name(tmp_path, monkeypatch):
    trees.imagefolder(tmp_path / "train", ["a", "b"])
    trees.imagefolder(tmp_path / "test", ["c", "d", "e"])
    data = read("folder", tmp_path)
    assert {name[:7] for name in names(data.train)} == {"train/a", "train/b"}
    assert {name[:6] for name in names(data.test)} == {"test/c", "test/d", "test/e"}
    monkeypatch.chdir(tmp_path)
    assert names(read("folder", Path()).train) == names(data.train)


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
    data = read("folder", root)
    assert names(data.train) == ["files/b/00.png", "files/b/01.png", "files/c/00.png", "files/c/01.png"]
    assert [data.test.path(i) for i in range(5)][-1] == outside
    trees.lines(table, ["path,class", *rows])
    assert labels(read("folder", root).train) == sorted((halves(4)[0] + 1).tolist())


# What is damaged, missing or something else


def test_missing_images_are_counted_and_the_first_is_named(tmp_path):
    root = trees.cub200(tmp_path)
    missing = [root / "images" / "002.Bird_2" / f"Bird_2_{i:04d}.jpg" for i in (3, 5)]
    for path in missing:
        path.unlink()
    assert refusal("cub200", root) == f"{missing[0]} is missing, the first of 2 of 18 images."
    (root / "images").rename(tmp_path / "elsewhere")
    assert refusal("cub200", root).endswith("is missing, the first of 18 of 18 images.")


def test_image_listed_twice(tmp_path):
    root = trees.sop(tmp_path)
    rows = (root / "Ebay_train.txt").read_text().splitlines()
    trees.lines(root / "Ebay_train.txt", [*rows, rows[-1]])
    assert refusal("sop", root) == f"{root / rows[-1].split()[3]} is listed 2 times."


@pytest.mark.parametrize(
    ("dataset", "file", "line", "text", "accepted"),
    [
        ("cub200", "images.txt", 5, "5", "<image_id> <path>"),
        ("cub200", "image_class_labels.txt", 18, "18 two", "<image_id> <class_id>"),
        ("cub200", "image_class_labels.txt", 1, "\x00\x1b\udcff" + 100 * "x", "<image_id> <class_id>"),
        ("sop", "Ebay_test.txt", 3, "11 11319 2", "<image_id> <class_id> <super_class_id> <path>"),
        ("sop", "Ebay_train.txt", 1, "1 1 1 a.jpg", "image_id class_id super_class_id path"),
    ],
)
def test_damaged_line_is_named(tmp_path, dataset, file, line, text, accepted):
    path = {"cub200": trees.cub200, "sop": trees.sop}[dataset](tmp_path) / file
    rows = path.read_text().splitlines()
    rows[line - 1] = text
    path.write_text("\n".join(rows), "utf-8", errors="surrogateescape")
    shown = repr(text if len(text) < 60 else text[:60] + "...")
    assert refusal(dataset, tmp_path) == f"{path}, line {line}: {shown} is not {accepted}."


def test_missing_lists_are_named(tmp_path):
    root = trees.cub200(tmp_path)
    (root / "images.txt").unlink()
    assert refusal("cub200", root) == f"{root / 'images.txt'} is missing."
    root = trees.sop(tmp_path)
    (root / "Ebay_test.txt").unlink()
    assert refusal("sop", root) == f"{root / 'Ebay_test.txt'} is missing."


def test_image_without_a_class(tmp_path):
    path = trees.cub200(tmp_path) / "image_class_labels.txt"
    trees.lines(path, [row for row in path.read_text().splitlines() if not row.startswith("7 ")])
    assert refusal("cub200", tmp_path) == f"{path} has no line for image 7 of images.txt."


def test_cars196_says_which_annotations_are_missing_and_what_for(tmp_path):
    root = trees.cars196_devkit(tmp_path)
    (root / "cars_test_annos_withlabels.mat").unlink()
    assert refusal("cars196", root) == (
        f"{root / 'cars_test_annos_withlabels.mat'} is missing, also in devkit/, car_devkit/, car_devkit/devkit/: the"
        " classes of its images stand there (cars_test_annos.mat has none), and the retrieval split is by class, over"
        " both folders."
    )
    unlabelled = root / "cars_test_annos_withlabels.mat"
    unlabelled.write_bytes((root / "devkit" / "cars_test_annos.mat").read_bytes())
    assert refusal("cars196", root) == f"{unlabelled} does not give the class of its images."
    root = trees.cars196(tmp_path)
    (root / "car_ims").rename(tmp_path / "images")
    assert refusal("cars196", root) == (
        f"{root} has no images of CARS196: looked for car_ims/, for cars_train/ and cars_test/, and for train/ and"
        " test/; found cars_annos.mat."
    )


@pytest.mark.parametrize("size", [0, 100, 200, 360])
def test_truncated_annotations_are_named(tmp_path, size):
    path = trees.cars196(tmp_path) / "cars_annos.mat"
    assert path.stat().st_size > 360
    os.truncate(path, size)
    assert refusal("cars196", tmp_path).startswith(f"{path} is not a whole MATLAB file of annotations (")


def test_wrong_folder_is_told_what_was_looked_for_and_what_is_there(tmp_path):
    trees.imagefolder(tmp_path / "pictures", "gfedcba", images_per_class=1)
    assert refusal("cub200", tmp_path / "pictures") == (
        f"--root {tmp_path / 'pictures'} is not CUB-200-2011: looked for image_class_labels.txt, there and two folders"
        " down; found a, b, c, d, e and 2 more."
    )
    (tmp_path / "empty").mkdir()
    assert refusal("sop", tmp_path / "empty") == (
        f"--root {tmp_path / 'empty'} is not Stanford Online Products: looked for Ebay_train.txt or Ebay_test.txt,"
        " there and two folders down; found nothing."
    )
    assert refusal("folder", tmp_path / "empty").endswith(
        "for train/ and test/ with such folders, and for a CSV file with the columns path and class; found nothing."
    )
    assert refusal("cars196", tmp_path / "nowhere") == f"--root {tmp_path / 'nowhere'} is not a folder."


@pytest.mark.parametrize("layout", LAYOUTS)
def test_data_set_under_the_name_of_another_is_recognised(tmp_path, layout):
    dataset, build = LAYOUTS[layout]
    root = build(tmp_path)
    other = "sop" if dataset != "sop" else "cub200"
    assert f"this looks like {read(dataset, root).notes[0].split(' from ')[0]}: use --dataset {dataset}." in refusal(
        other, root
    )
    if "car_data" not in layout:
        assert refusal("folder", root).endswith(f": use --dataset {dataset}.")


def test_classes_in_both_halves_are_refused(tmp_path):
    for half in ("train", "test"):
        trees.imagefolder(tmp_path / half, ["wren", "crow", half])
    assert refusal("folder", tmp_path) == (
        f"{tmp_path} has class crow and 1 others both to train and to test on: retrieval is for new classes."
    )
    root = trees.sop(tmp_path, train=(1, 2, 5), test=(5, 6))
    assert f"{root} has class 5 both to train and to test on" in refusal("sop", root)


def test_too_few_classes_are_refused(tmp_path):
    trees.imagefolder(tmp_path, ["a", "b", "c"])
    assert refusal("folder", tmp_path) == (
        f"{tmp_path} has 1 class with 2 images to train on, 2 classes with 4 images to test on; at least 2 classes of"
        " each are needed."
    )


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            ["path,label", "a.jpg,1"],
            "is no CSV file with the columns path, class and, if wanted, split in its first line.",
        ),
        (["path,class"], "names no images."),
        (["path,class", "a.jpg,1", "b.jpg"], ", line 3: path 'b.jpg', class '' is not a path, a class."),
        (
            ["path,class,split", "a.jpg,1,val"],
            ", line 2: path 'a.jpg', class '1', split 'val' is not a path, a class and train or test.",
        ),
        (["path,class", *(f"{i}.jpg,{i % 4}" for i in range(8))], "0.jpg is missing, the first of 8 of 8 images."),
    ],
)
def test_damaged_csv_file_is_named(tmp_path, rows, message):
    trees.lines(tmp_path / "images.csv", rows)
    text = refusal("folder", tmp_path / "images.csv")
    assert text.startswith(str(tmp_path))
    assert text.endswith(message)


def test_two_csv_files_in_one_folder(tmp_path):
    for name in ("b.csv", "a.csv"):
        trees.lines(tmp_path / name, ["path,class"])
    assert refusal("folder", tmp_path) == f"--root {tmp_path} has more than one CSV file of images, a.csv and b.csv."
