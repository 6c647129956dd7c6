"""A run's folder on file systems that offer less, and its TensorBoard events."""

from __future__ import annotations

import errno
import os
import stat

import numpy as np
import pytest

from svmax_ops.runs import harness
from svmax_ops.runs.errors import UserError
from svmax_ops.runs.harness import RunFolder
from svmax_ops.runs.tensorboard_events import _histogram


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP], ids=errno.errorcode.get)
def test_a_file_system_without_locks_is_told_of_once(monkeypatch, capsys, tmp_path, number):
    def flock(file, how):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(harness.fcntl, "flock", flock)
    for resume in (False, True):
        with RunFolder(tmp_path / "run", {}, "svmax", resume) as folder:
            folder.save(0, {})
        said = "is on a file system without locks: see to it that no second process runs in it.\n"
        assert capsys.readouterr().out == f"{tmp_path / 'run'} {said}"


def test_a_lock_that_fails_otherwise_is_an_error(monkeypatch, tmp_path):
    def flock(file, how):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(harness.fcntl, "flock", flock)
    with pytest.raises(UserError, match=r"cannot write .*: Input/output error"):
        RunFolder(tmp_path / "run", {}, "svmax", False)


@pytest.mark.parametrize(("number", "fails"), [(errno.EINVAL, False), (errno.EIO, True), (errno.ENOSPC, True)])
def test_a_folder_that_cannot_be_synchronized_is_used_all_the_same(monkeypatch, tmp_path, number, fails):
    fsync = os.fsync

    def of_files_alone(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(harness.os, "fsync", of_files_alone)
    if fails:
        with pytest.raises(UserError, match="cannot write"):
            harness.write_atomically(tmp_path / "file", b"data")
    else:
        harness.write_atomically(tmp_path / "file", b"data")
    assert (tmp_path / "file").read_bytes() == b"data"


@pytest.mark.parametrize(
    "values",
    [
        [12.0, *np.geomspace(1e-9, 1.0000001e-9, 127)],  # collapsed
        [1.0, np.nextafter(1.0, 2.0)],
        [0.0, 5e-324],
        [0.5] * 8,
        [3.0],
        list(range(128)),
    ],
    ids=["collapsed", "neighbours", "smallest", "equal", "one", "spread"],
)
def test_a_histogram_has_few_bins_and_every_value_in_one(values):
    found = _histogram(values)
    assert len(found.bucket) == len(found.bucket_limit) == 30
    assert sum(found.bucket) == found.num == len(values)
    assert found.bucket_limit[-1] == found.max == max(values)
    assert list(found.bucket_limit) == sorted(found.bucket_limit)
    assert found.bucket[-1] >= 1


def test_a_histogram_of_what_is_not_finite_has_no_bins():
    assert len(_histogram([1.0, float("nan")]).bucket) == 0
