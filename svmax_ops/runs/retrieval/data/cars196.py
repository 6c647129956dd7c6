"""CARS196 (Krause et al., 2013): 196 models of cars, in each of the layouts that the images are passed on in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.io import loadmat

from svmax_ops.runs.errors import UserError
from svmax_ops.runs.retrieval.config import RetrievalConfig
from svmax_ops.runs.retrieval.data.class_folders import LeftOut, read_class_folders
from svmax_ops.runs.retrieval.data.layouts import LAYOUTS, content, locate
from svmax_ops.runs.retrieval.data.listing import Count, Half, checked, numbered, split
from svmax_ops.runs.retrieval.data.pictures import RetrievalData

PUBLISHED = Count(98, 8054), Count(98, 8131)
LAST_TRAINING_CLASS = 98
_FIRST_TESTING_LETTER = "F"  # classes 1 to 98 are the makes from AM General to Eagle, 99 to 196 from Ferrari to smart
_DEVKITS = ("", "devkit", "car_devkit", "car_devkit/devkit")


def cars196(config: RetrievalConfig) -> RetrievalData:
    """All images, whichever of the data set's own halves they lie in: those are not by class.

    Recognised are ``cars_annos.mat`` with ``car_ims/``; ``cars_train/`` and ``cars_test/`` with the annotations of the
    devkit; ``train/`` and ``test/`` with a folder for each class.
    """
    root = locate(config)
    left_out = LeftOut()
    if (root / "car_ims").is_dir():
        halves = _by_number(*_listed(root, "cars_annos", "relative_im_path", ""))
    elif (root / "cars_train").is_dir() or (root / "cars_test").is_dir():
        train_names, train_classes = _listed(root, "cars_train_annos", "fname", _images(root, "cars_train"))
        test_names, test_classes = _listed(root, "cars_test_annos_withlabels", "fname", _images(root, "cars_test"))
        halves = _by_number(train_names + test_names, train_classes + test_classes)
    elif (root / "train").is_dir() and (root / "test").is_dir():
        halves = _by_make(root, left_out)
    else:
        looked_for = "looked for car_ims/, for cars_train/ and cars_test/, and for train/ and test/"
        raise UserError(f"{root} has no images of CARS196: {looked_for}; found {content(root)}.")
    published = PUBLISHED if config.check_counts else None
    return checked(LAYOUTS["cars196"].title, root, *halves, published, notes=left_out.lines())


def _by_number(names: list[str], classes: list[int]) -> tuple[Half, Half]:
    return split(names, classes, [label <= LAST_TRAINING_CLASS for label in classes])


def _images(root: Path, folder: str) -> str:
    """Kaggle's copy has the folder twice, one in the other."""
    return f"{folder}/{folder}/" if (root / folder / folder).is_dir() else f"{folder}/"


def _listed(root: Path, stem: str, name_field: str, folder: str) -> tuple[list[str], list[int]]:
    """Paths and classes of the images of one annotation file."""
    # A browser that has the name already adds " (1)" to it; copies were passed on so.
    files = [file for devkit in _DEVKITS for file in sorted((root / devkit).glob(f"{stem}*.mat"))]
    if not files:
        places = ", ".join(f"{devkit}/" for devkit in _DEVKITS if devkit)
        why = "the classes of its images stand there"
        if stem == "cars_test_annos_withlabels":
            why += " (cars_test_annos.mat has none), and the retrieval split is by class, over both folders"
        raise UserError(f"{root / stem}.mat is missing, also in {places}: {why}.")
    annotations = _annotations(files[0])
    for field in (name_field, "class"):
        if field not in (annotations.dtype.names or ()):
            raise UserError(f"{files[0]} does not give the {field} of its images.")
    return [f"{folder}{name}" for name in annotations[name_field]], annotations["class"].astype(int).tolist()


def _annotations(path: Path) -> np.ndarray:
    """The struct array of a file, an element for each image."""
    try:
        return np.atleast_1d(loadmat(path, squeeze_me=True)["annotations"])
    except Exception as error:  # whatever scipy's parser happens to stumble over in a damaged file
        reason = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(".")
        raise UserError(f"{path} is not a whole MATLAB file of annotations ({reason}).") from error


def _by_make(root: Path, left_out: LeftOut) -> tuple[Half, Half]:
    """The folders have the names of the classes, which number them in alphabetical order of the makes."""
    halves = [read_class_folders(root, folder, left_out) for folder in ("train", "test")]
    names, classes = ([*train, *test] for train, test in zip(*halves, strict=True))
    return split(names, numbered(classes), [name.upper() < _FIRST_TESTING_LETTER for name in classes])
