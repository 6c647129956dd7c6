"""Small copies of the data sets' folders: the right names and layouts, tiny pictures, few classes."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from svmax_ops.runs.retrieval.config import RetrievalConfig
from svmax_ops.runs.retrieval.data import DATASETS
from svmax_ops.runs.retrieval.data.pictures import RetrievalData


def picture(path: Path, colour: int = 0) -> None:
    """A file of 40 to 79 pixels a side; pictures of one ``colour`` resemble each other, no two names' are equal."""
    rng = np.random.default_rng(zlib.crc32("/".join(path.parts[-3:]).encode()))
    width, height = rng.integers(40, 80, 2)
    coarse = 0.6 * np.random.default_rng(colour).integers(0, 256, (3, 3, 3)) + 0.4 * rng.integers(0, 256, (3, 3, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(coarse.astype(np.uint8)).resize((width, height), Image.Resampling.BICUBIC).save(path)


def _pictures(root: Path, paths: Iterable[str], labels: Iterable[int]) -> None:
    for path, label in zip(paths, labels, strict=True):
        picture(root / path, label)


def cub200(root: Path, classes: Iterable[int] = (1, 2, 100, 101, 102, 200), images_per_class: int = 3) -> Path:
    """CUB-200-2011 with these of its classes; ``root / "CUB_200_2011"``."""
    folder = root / "CUB_200_2011"
    labels = [label for label in classes for _ in range(images_per_class)]
    paths = [f"{label:03d}.Bird_{label}/Bird_{label}_{i:04d}.jpg" for i, label in enumerate(labels)]
    _pictures(folder / "images", paths, labels)
    lines(folder / "images.txt", (f"{i} {path}" for i, path in enumerate(paths, 1)))
    lines(folder / "image_class_labels.txt", (f"{i} {label}" for i, label in enumerate(labels, 1)))
    lines(folder / "classes.txt", (f"{label} {label:03d}.Bird_{label}" for label in sorted(set(labels))))
    return folder


def cars196(root: Path, classes: Iterable[int] = (1, 2, 98, 99, 100, 196), images_per_class: int = 3) -> Path:
    """CARS196 as first published: ``cars_annos.mat`` beside ``car_ims/``."""
    folder = root / "cars"
    labels = [label for label in classes for _ in range(images_per_class)]
    paths = [f"car_ims/{i:06d}.jpg" for i in range(1, len(labels) + 1)]
    _pictures(folder, paths, labels)
    annotations(folder / "cars_annos.mat", relative_im_path=paths, bbox_x1=[1] * len(paths), **{"class": labels})
    return folder


def cars196_devkit(
    root: Path,
    classes: Iterable[int] = (1, 2, 98, 99, 100, 196),
    images_per_class: int = 2,
    devkit: str = "devkit",
    nested: bool = False,
    with_labels: str = "cars_test_annos_withlabels.mat",
) -> Path:
    """CARS196 in halves of its own, every class in both: ``cars_train/``, ``cars_test/`` and their annotations.

    Args:
        devkit: the folder of the annotations.
        nested: ``cars_train/cars_train/`` as in Kaggle's copy.
        with_labels: path of the annotations of ``cars_test/`` that name the classes.
    """
    folder = root / "stanford_cars"
    labels = [label for label in classes for _ in range(images_per_class)]
    names = [f"{i:05d}.jpg" for i in range(1, len(labels) + 1)]
    for half in ("cars_train", "cars_test"):
        _pictures(folder / half / (half if nested else ""), names, labels)
        annotations(folder / devkit / f"{half}_annos.mat", fname=names, **({} if "test" in half else {"class": labels}))
    annotations(folder / with_labels, fname=names, **{"class": labels})
    return folder


def cars196_by_class(root: Path, classes: Iterable[str], images_per_class: int = 2, inside: str = "") -> Path:
    """CARS196 with a folder for each class in ``train/`` and in ``test/``, as in other copies of Kaggle's."""
    folder = root / "archive"
    for half in ("train", "test"):
        imagefolder(folder / inside / half, classes, images_per_class)
    return folder


def sop(
    root: Path,
    train: Iterable[int] = (1, 2, 3, 11318),
    test: Iterable[int] = (11319, 11320, 22634),
    images_per_class: int = 2,
) -> Path:
    """Stanford Online Products with these of its classes."""
    folder = root / "Stanford_Online_Products"
    image = 0
    for half, classes in (("train", train), ("test", test)):
        rows = []
        for label in classes:
            for i in range(images_per_class):
                image += 1
                path = f"{('bicycle', 'chair')[label % 2]}_final/1110{label:05d}_{i}.JPG"
                picture(folder / path, label)
                rows.append(f"{image} {label} {label % 2 + 1} {path}")
        lines(folder / f"Ebay_{half}.txt", ["image_id class_id super_class_id path", *rows])
    return folder


def imagefolder(root: Path, classes: Iterable[str], images_per_class: int = 2, suffix: str = ".jpg") -> Path:
    """``root/<class>/<name>``."""
    for label, name in enumerate(classes):
        for i in range(images_per_class):
            picture(root / name / f"{i:02d}{suffix}", label)
    return root


def lines(path: Path, rows: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{row}\n" for row in rows), "utf-8")


def annotations(path: Path, **columns: list) -> None:
    """A MATLAB file of one struct array, ``annotations``, as those of CARS196."""
    rows = list(zip(*columns.values(), strict=True))
    path.parent.mkdir(parents=True, exist_ok=True)
    struct = np.array([rows], [(name, object) for name in columns])
    savemat(path, {"annotations": struct}, do_compression=True)  # as MATLAB does


CARS = ["AM General Hummer SUV 2000", "Eagle Talon Hatchback 1998", "FIAT 500 Abarth 2012", "smart fortwo 2012"]
LAYOUTS: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "cub200": ("cub200", cub200),
    "cars196, first published": ("cars196", cars196),
    "cars196, devkit": ("cars196", cars196_devkit),
    "cars196, torchvision": (
        "cars196",
        lambda root: cars196_devkit(root, with_labels="devkit/cars_test_annos_withlabels.mat"),
    ),
    "cars196, Kaggle, nested": (
        "cars196",
        lambda root: cars196_devkit(
            root, devkit="car_devkit/devkit", nested=True, with_labels="cars_test_annos_withlabels (1).mat"
        ),
    ),
    "cars196, Kaggle, by class": ("cars196", lambda root: cars196_by_class(root, CARS)),
    "cars196, Kaggle, car_data": (
        "cars196",
        lambda root: cars196_by_class(root, CARS, inside="car_data/car_data"),
    ),
    "sop": ("sop", sop),
}
"""The data set and a function that makes it below a folder."""


def read(dataset: str, root: Path, check_counts: bool = False) -> RetrievalData:
    return DATASETS[dataset](RetrievalConfig(dataset=dataset, root=root, check_counts=check_counts))
