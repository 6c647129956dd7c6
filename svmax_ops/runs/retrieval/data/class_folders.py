"""A folder for each class: which files in it are images, and what is left out."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path

from torchvision.datasets.folder import IMG_EXTENSIONS

from svmax_ops.runs.errors import UserError
from svmax_ops.runs.harness import CONFIG, METRICS

SUFFIXES = (*IMG_EXTENSIONS, ".avif", ".gif", ".jfif", ".jp2", ".jpe")
_SYSTEM = {
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information"),  # Windows
    *(
        "__macosx",
        "icon\r",
        "@eadir",
        "@recycle",
        "#recycle",
        "#snapshot",
        "lost+found",
    ),  # macOS, servers
    "__pycache__",
}
_RUN, _REPORT = {CONFIG, METRICS}, {"runs.csv", "table.csv", "table.md"}  # what svmax always writes into a folder
_SHOWN = 5

# What is left out: one of a kind, several.
HIDDEN = "hidden or system name", "hidden or system names"
RUNS = "folder of svmax's runs", "folders of svmax's runs"
OTHER_KINDS = "file that is no image by its suffix", "files that are no images by their suffixes"
BESIDE = "file in no folder of a class", "files in no folder of a class"
WITHOUT_IMAGES = "folder without an image", "folders without an image"
LINKS = "link to a folder that it lies in", "links to folders that they lie in"
_NAMED_BY_SUFFIX = (OTHER_KINDS,)


class LeftOut:
    """Files and folders that are no data, by what they are."""

    def __init__(self) -> None:
        self._names: dict[tuple[str, str], list[str]] = {}
        self._known: set[str] = set()

    def add(self, kind: tuple[str, str], *names: str) -> None:
        """Of one ``kind``: what one of it is called, and several. A name that is there already stays what it is."""
        new = [name for name in names if name not in self._known]
        self._known.update(new)
        if new:
            self._names.setdefault(kind, []).extend(new)

    def lines(self) -> list[str]:
        """A line for each kind, with its number."""
        lines = []
        for kind, names in self._names.items():
            shown = _by_suffix(names) if kind in _NAMED_BY_SUFFIX else first_of(sorted(names))
            lines.append(f"left out: {len(names):,} {kind[len(names) > 1]} ({shown})")
        return lines


def first_of(names: Collection[str]) -> str:
    """The first names, and how many more there are."""
    shown = [os.fsencode(name).decode("utf-8", "replace") for name in list(names)[:_SHOWN]]
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(shown) + more


def is_hidden(name: str) -> bool:
    """Whether a file or folder of that name is kept by a system or a program for itself."""
    return name.startswith(".") or name.lower() in _SYSTEM


def is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in ``folder`` that may hold data.

    Raises:
        UserError: it cannot be read.
    """
    return [name for name in listed(folder) if (folder / name).is_dir()]


def read_class_folders(root: Path, below: str, left_out: LeftOut) -> tuple[list[str], list[str]]:
    """The images in ``root / below``, which has a folder for each class, with folders in it or not.

    Args:
        root: the data set's folder.
        below: a folder in it; "" is ``root`` itself.
        left_out: gets what is no data.
    Returns:
        names, relative to ``root``, and classes, in the order of the classes.
    Raises:
        UserError: a folder cannot be read.
    """
    top = root / below
    found: dict[str, list[tuple[str, list[str]]]] = {}
    with_runs = set()
    for path, folders, files in os.walk(top, onerror=_refuse, followlinks=True):
        inside = "" if path == str(top) else os.path.relpath(path, top)
        here = os.path.normpath(os.path.join(below, inside)) if below or inside else ""
        name = inside.split(os.sep)[0]
        if inside and (set(files) >= _RUN or set(files) >= _REPORT):
            left_out.add(RUNS, here)
            with_runs.add(name)
            folders.clear()
            continue
        for kind, is_of_kind in ((HIDDEN, is_hidden), (LINKS, lambda folder, path=path: _leads_up(path, folder))):
            those = {folder for folder in folders if is_of_kind(folder)}
            left_out.add(kind, *(os.path.join(here, folder) for folder in those))
            folders[:] = [folder for folder in folders if folder not in those]
        left_out.add(HIDDEN, *(os.path.join(here, file) for file in files if is_hidden(file)))
        files = [file for file in files if not is_hidden(file)]
        if not inside:
            found = {folder: [] for folder in sorted(folders)}
            left_out.add(BESIDE, *(os.path.join(here, file) for file in files if is_image(file)))
        left_out.add(OTHER_KINDS, *(os.path.join(here, file) for file in files if not is_image(file)))
        if inside:
            found[name].append((here, sorted(filter(is_image, files))))
    names, classes = [], []
    for name, parts in found.items():
        of_class = [os.path.join(here, file) for here, files in sorted(parts) for file in files]
        if not of_class and name not in with_runs:
            left_out.add(WITHOUT_IMAGES, os.path.join(below, name))
        names += of_class
        classes += [name] * len(of_class)
    return names, classes


def has_images(folder: Path) -> bool:
    """Whether images lie in the folder itself."""
    return any(is_image(name) for name in listed(folder))


def listed(folder: Path) -> list[str]:
    """Names in ``folder``, in order, but for those that systems and programs keep for themselves.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return sorted(name for name in os.listdir(folder) if not is_hidden(name))
    except OSError as error:
        raise _unreadable(error) from error


def _leads_up(path: str, folder: str) -> bool:
    """Whether ``folder`` in ``path`` is a link to a folder around it, below which all would come again and again."""
    link = os.path.join(path, folder)
    return os.path.islink(link) and Path(path).resolve().is_relative_to(Path(link).resolve())


def _by_suffix(names: Iterable[str]) -> str:
    """The commonest suffixes with their numbers."""
    count = Counter(os.path.splitext(name)[1].lower() or "none" for name in names)
    return first_of([f"{suffix} {number:,}" for suffix, number in count.most_common()])


def _refuse(error: OSError) -> None:
    raise _unreadable(error) from error


def _unreadable(error: OSError) -> UserError:
    return UserError(f"{error.filename} cannot be read: {error.strerror}.")
