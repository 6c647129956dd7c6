"""Data sets that are damaged, incomplete, or not the one that was asked for: one sentence says what, and where."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from svmax_ops.runs.errors import UserError
from tests.runs import trees


def refusal(dataset: str, root: Path, check_counts: bool = False) -> str:
    with pytest.raises(UserError) as caught:
        trees.read(dataset, root, check_counts)
    text = str(caught.value)
    assert text.endswith(".")
    assert "\n" not in text
    return text


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


@pytest.mark.parametrize("layout", trees.LAYOUTS)
def test_data_set_under_the_name_of_another_is_recognised(tmp_path, layout):
    dataset, build = trees.LAYOUTS[layout]
    root = build(tmp_path)
    other = "sop" if dataset != "sop" else "cub200"
    title = trees.read(dataset, root).notes[0].split(" from ")[0]
    assert refusal(other, root).endswith(f"; this looks like {title}: use --dataset {dataset}.")
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
        " each are needed (a folder for each class, split by class at random; classes to train on: c; to test on: a,"
        " b)."
    )


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            ["path,species", "a.jpg,1"],
            ": its first line, 'path,species', has no column for the class (class, label, class_name, label_name,"
            " class_id, label_id, category, target); rename one (between commas, semicolons or tabs).",
        ),
        (["path,class"], "names no images."),
        (["path,class", "a.jpg,1", "b.jpg"], ", line 3: path 'b.jpg', class '' is not a path, a class."),
        (
            ["path,class,split", "a.jpg,1,1"],
            ", line 2: path 'a.jpg', class '1', split '1' is not a path, a class and train, test or val.",
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
