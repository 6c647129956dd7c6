"""A folder of the user's as it is found on real disks: what is data, what is not, and what is said of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from svmax_ops.runs.errors import UserError
from svmax_ops.runs.retrieval.data.pictures import RetrievalData
from tests.runs import trees


def names(data: RetrievalData) -> set[str]:
    return {os.fsdecode(name) for half in (data.train, data.test) for name in half.names.tolist()}


def classes(pictures) -> set[str]:
    """The folders that the pictures lie in."""
    return {os.fsdecode(name).split("/")[-2] for name in pictures.names.tolist()}


def refusal(root: Path) -> str:
    with pytest.raises(UserError) as caught:
        trees.read("folder", root)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")
    return str(caught.value)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four classes of two images."""
    return trees.imagefolder(tmp_path / "birds", ["crow", "jay", "owl", "wren"])


def a_run(folder: Path) -> None:
    trees.picture(folder / "neighbours.png")
    for name in ("config.json", "metrics.jsonl"):
        (folder / name).touch()


def test_hidden_and_system_names_are_no_data_and_are_counted(root):
    before = trees.read("folder", root)
    for name in (
        *("crow/.ipynb_checkpoints/00-checkpoint.jpg", ".ipynb_checkpoints/00.jpg", "__MACOSX/crow/0.jpg"),
        *("@eaDir/0.jpg", "jay/@eaDir/00.jpg/SYNOPHOTO_THUMB_M.jpg", "$RECYCLE.BIN/0.jpg", ".Trash-1000/files/0.jpg"),
        *("jay/._00.jpg", "jay/.nomedia.jpg", "#recycle/0.jpg"),
    ):
        trees.picture(root / name)
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "owl/.DS_Store", "owl/Thumbs.db"):
        (root / name).touch()
    after = trees.read("folder", root)
    assert names(after) == names(before)
    assert after.train.labels.equal(before.train.labels)
    assert after.notes[:-1] == before.notes
    assert after.notes[-1] == (
        "  left out: 15 hidden or system names (#recycle, $RECYCLE.BIN, .DS_Store, .Trash-1000, .ipynb_checkpoints and"
        " 10 more)"
    )


def test_a_run_of_svmax_in_the_folder_is_no_class_and_no_part_of_one(root):
    before = trees.read("folder", root)
    a_run(root / "runs" / "triplet")
    a_run(root / "runs" / "study" / "lr0.1")  # a sweep's folder has its report and no config.json
    for name in ("runs.csv", "table.csv", "table.md"):
        (root / "runs" / "study" / name).touch()
    trees.picture(root / "runs" / "study" / "picture.png")
    a_run(root / "crow" / "run")
    a_run(root / "several")
    a_run(root / "several" / "vanilla-seed0")
    after = trees.read("folder", root)
    assert names(after) == names(before)
    assert after.notes[-1] == ("  left out: 4 folders of svmax's runs (crow/run, runs/study, runs/triplet, several)")


def test_a_folder_with_a_config_of_another_kind_is_a_class(root):
    (root / "crow" / "config.json").touch()
    assert "crow/00.jpg" in names(trees.read("folder", root))


def test_what_is_no_image_by_its_suffix_is_counted_and_a_class_without_images_is_named(root):
    for name in ("robin/0.heic", "robin/1.heic", "crow/0.heic", "crow/notes.txt", "crow/mask", "README.md"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).touch()
    (root / "empty").mkdir()
    trees.picture(root / "stray.jpg")
    data = trees.read("folder", root)
    assert len(names(data)) == 8
    assert data.notes[2:] == (
        "  left out: 1 file in no folder of a class (stray.jpg)",
        "  left out: 6 files that are no images by their suffixes (.heic 3, .md 1, .txt 1, none 1)",
        "  left out: 2 folders without an image (empty, robin)",
    )


@pytest.mark.parametrize("suffix", [".gif", ".JFIF", ".avif", ".webp", ".tiff", ".JPG"])
def test_suffixes_that_pillow_reads_are_images(root, suffix):
    trees.picture(root / "crow" / f"new{suffix}")
    assert f"crow/new{suffix}" in names(trees.read("folder", root))


def test_images_come_from_folders_within_a_class_and_over_links_but_not_in_circles(root, tmp_path):
    trees.picture(root / "crow" / "young" / "00.jpg")
    trees.imagefolder(tmp_path / "elsewhere", ["tit"])
    (root / "tit").symlink_to(tmp_path / "elsewhere" / "tit")
    (root / "owl" / "all").symlink_to(root)
    data = trees.read("folder", root)
    found = {f"{name}/0{i}.jpg" for name in ("crow", "crow/young", "jay", "owl", "tit", "wren") for i in (0, 1)}
    assert names(data) == found - {"crow/young/01.jpg"}
    assert data.notes[-1] == "  left out: 1 link to a folder that it lies in (owl/all)"


def test_a_class_that_may_not_be_read_is_named(root, monkeypatch):
    scandir = os.scandir

    def forbidden(path: str):
        if path == str(root / "jay"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", forbidden)  # root may read everything, whatever the mode of the folder
    assert refusal(root) == f"{root / 'jay'} cannot be read: Permission denied."


def test_names_that_are_not_utf_8_can_be_printed(root):
    trees.picture(root / "crow" / "0.jpg")
    (root / "crow").rename(root / os.fsdecode(b"kr\xe4he"))
    for note in trees.read("folder", root).notes:
        note.encode("utf-8")


# Folders of the split


@pytest.mark.parametrize(
    ("train", "test"),
    [("train", "val"), ("Train", "Test"), ("training", "testing"), ("TRAIN", "valid"), ("train", "Validation")],
)
def test_halves_are_known_by_their_usual_names(tmp_path, train, test):
    trees.imagefolder(tmp_path / train, ["a", "b"])
    trees.imagefolder(tmp_path / test, ["c", "d", "e"])
    data = trees.read("folder", tmp_path)
    assert (classes(data.train), classes(data.test)) == ({"a", "b"}, {"c", "d", "e"})
    assert data.notes[1:] == (f"  folders {train}/, {test}/; classes to train on: a, b; to test on: c, d, e",)


def test_images_to_validate_on_are_left_out_beside_those_to_test_on_and_so_are_other_folders(tmp_path):
    for half, its in (("train", "ab"), ("test", "cd"), ("val", "ef"), ("extra", "gh")):
        trees.imagefolder(tmp_path / half, its)
    data = trees.read("folder", tmp_path)
    assert (classes(data.train), classes(data.test)) == ({"a", "b"}, {"c", "d"})
    assert data.notes[2:] == (
        "  left out: 1 folder beside those of the split (extra)",
        "  left out: 4 images to validate on (val/e/00.jpg, val/e/01.jpg, val/f/00.jpg, val/f/01.jpg)",
    )


def test_a_half_without_the_other_is_refused(tmp_path):
    trees.imagefolder(tmp_path / "Train", "abcd")
    assert refusal(tmp_path) == (
        f"--root {tmp_path} has Train/ without the other half (looked for train/, training/, test/, testing/, val/,"
        f" valid/, validation/; found Train); --root {tmp_path / 'Train'} alone would be split by class at random."
    )
    trees.imagefolder(tmp_path / "training", "ef")
    trees.imagefolder(tmp_path / "test", "ef")
    assert refusal(tmp_path) == (
        f"--root {tmp_path} has Train/, test/, training/: one folder to train on and one to test on."
    )


def test_a_class_may_be_called_train(tmp_path):
    trees.imagefolder(tmp_path, ["bus", "car", "plane", "train"])
    data = trees.read("folder", tmp_path)
    assert classes(data.train) | classes(data.test) == {"bus", "car", "plane", "train"}


@pytest.mark.parametrize("layout", ["classes", "halves", "table"])
def test_the_folder_around_the_data_set_will_do(tmp_path, layout):
    inner = tmp_path / "archive" / "birds"
    for half, its in (("train/", "ab"), ("test/", "cd")):
        trees.imagefolder(inner / ("" if layout == "classes" else half), its)
    if layout == "table":
        trees.lines(inner / "list.csv", ["path,class", *(f"{half}/00.jpg,{half}" for half in ("train/a", "train/b"))])
        for name in ("test/c", "test/d"):
            trees.lines(inner / "list.csv", [*(inner / "list.csv").read_text().splitlines(), f"{name}/00.jpg,{name}"])
    outside, inside = (trees.read("folder", root) for root in (tmp_path, inner))
    assert names(outside) == names(inside)
    assert outside.notes == inside.notes


def test_a_root_that_is_one_folder_too_high_is_refused_with_the_classes_that_were_found(tmp_path):
    trees.imagefolder(tmp_path / "birds", ["crow", "jay"])
    trees.imagefolder(tmp_path / "fish", ["cod", "eel"])
    assert refusal(tmp_path) == (
        f"{tmp_path} has 1 class with 4 images to train on, 1 class with 4 images to test on; at least 2 classes of"
        " each are needed (a folder for each class, split by class at random; classes to train on: birds; to test on:"
        " fish; their images lie further down, in birds/crow, birds/jay, fish/cod, fish/eel: if those are the"
        " classes, give a --root further down)."
    )


# Lists


def listed(root: Path, lines: list[str], name: str = "list.csv", encoding: str = "utf-8") -> Path:
    trees.imagefolder(root / "files", "abcd")
    (root / name).write_bytes("\r\n".join([*lines, ""]).encode(encoding))
    return root


@pytest.mark.parametrize(
    ("header", "delimiter", "encoding"),
    [
        ("path,class,split", ",", "utf-8"),
        ("Path;Class;Split", ";", "utf-8-sig"),
        (" path \t label \t set ", "\t", "utf-16"),
        ('"File Name", "Label", "Subset"', ", ", "utf-8"),
        ("image-path|category|SPLIT", "|", "utf-8"),
    ],
)
def test_a_list_is_read_whatever_its_delimiter_and_its_usual_column_names(tmp_path, header, delimiter, encoding):
    split = {"a": "Train", "b": "training", "c": "val", "d": "VALID"}
    rows = [delimiter.join([f"./files/{name}/0{i}.jpg", name, split[name]]) for name in "abcd" for i in (0, 1)]
    listed(tmp_path, [header, *rows], encoding=encoding)
    data = trees.read("folder", tmp_path)
    assert (classes(data.train), classes(data.test)) == ({"a", "b"}, {"c", "d"})
    assert "files/a/00.jpg" in names(data)
    assert data.notes[1:] == ("  listed in list.csv, split by its column; classes to train on: a, b; to test on: c, d",)


def test_rows_to_validate_on_are_left_out_beside_those_to_test_on(tmp_path):
    split = {"a": "train", "b": "train", "c": "test", "d": "test", "e": "val"}
    trees.imagefolder(tmp_path / "files", "e")
    listed(tmp_path, ["path,class,split", *(f"files/{name}/00.jpg,{name},{split[name]}" for name in "abcde")])
    data = trees.read("folder", tmp_path)
    assert names(data) == {f"files/{name}/00.jpg" for name in "abcd"}
    assert data.notes[-1] == "  left out: 1 image to validate on (files/e/00.jpg)"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["filename;species", "a.jpg;crow"], "'filename;species', has no column for the class (class, label, "),
        (["a.jpg,crow"], "'a.jpg,crow', has no column for the path (path, image_path, "),
        (["file,path of the thumbnail", "a.jpg,b"], "'file,path of the thumbnail', has no column for the class"),
    ],
)
def test_a_list_of_images_that_is_not_understood_is_not_passed_over(tmp_path, lines, said):
    path = listed(tmp_path, lines) / "list.csv"
    text = refusal(tmp_path)
    assert text.startswith(f"{path}: its first line, {said}")
    assert text.endswith("; rename one (between commas, semicolons or tabs), or move the file elsewhere.")
    text = refusal(path)
    assert text.startswith(f"{path}: its first line, {said}")


def test_two_columns_for_the_same_are_refused_unless_one_has_the_name_itself(tmp_path):
    header = "path,class_id,class name"
    rows = [f"files/{name}/00.jpg,{name},{name}" for name in "abcd"]
    path = listed(tmp_path, [header, *rows]) / "list.csv"
    assert refusal(tmp_path) == (
        f"{path} has 2 columns for the class, 'class_id', 'class name'; call one of them class."
    )
    listed(tmp_path, [header.replace("class name", "class"), *rows])
    assert len(names(trees.read("folder", tmp_path))) == 4


def test_a_table_without_images_is_no_obstacle_and_is_said(root):
    trees.lines(root / "scores.csv", ["epoch,loss", "1,2"])
    trees.lines(root / "classes.tsv", ["label\tEnglish name", "crow\tCarrion crow"])
    trees.lines(root / "._list.csv", ["path;species"])
    data = trees.read("folder", root)
    assert len(names(data)) == 8
    assert data.notes[2:] == (
        "  left out: 2 CSV files without a column for the path (classes.tsv, scores.csv)",
        "  left out: 1 hidden or system name (._list.csv)",
    )
