"""Whether a run that goes on has the data that it began with."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from svmax_ops.runs.command_line import kept_values
from svmax_ops.runs.errors import UserError
from svmax_ops.runs.harness import CHECKPOINT, read_checkpoint

KEPT = "data"
"""What the identity is called in a checkpoint."""
_CHOOSING = ("dataset", "root", "check_counts", "jitter", "images")  # the settings that say which data


def identity(content: str, parts: Iterable[np.ndarray]) -> dict[str, str]:
    """What tells data from others, as a checkpoint keeps it.

    Args:
        content: how many pictures, in words.
        parts: what is trained and tested on; a change of any of them makes another identity.
    """
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{part.dtype} {part.shape} ".encode())
        digest.update(np.ascontiguousarray(part).data)
    return {"digest": digest.hexdigest(), "content": content}


def require_same_data(folder: Path, config: Any, now: Mapping[str, str]) -> None:
    """Refuse to go on with other data; nothing in ``folder`` is touched.

    A checkpoint without an identity, of before they were kept, fits any data. One of other settings is left to
    ``RunFolder``, which names them.

    Args:
        folder: the run's, with or without a checkpoint.
        config: what it is to go on with.
        now: the identity of its data.
    Raises:
        UserError: they differ.
    """
    if not (folder / CHECKPOINT).exists():
        return
    checkpoint = read_checkpoint(folder / CHECKPOINT)
    settings = kept_values(config)
    if any(checkpoint["config"].get(name) != settings.get(name) for name in _CHOOSING):
        return
    then = checkpoint.get(KEPT, now)
    if then["digest"] == now["digest"]:
        return
    what = f"then {then['content']}, now {now['content']}"
    if then["content"] == now["content"]:
        what = f"{now['content']} as before, but other names, classes or pixels"
    raise UserError(
        f"--resume: the data set is not the one that the run in {folder} began with ({what}); put it back as it was, or"
        " choose another --out."
    )
