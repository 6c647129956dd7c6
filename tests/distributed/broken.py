"""Checks of a group that breaks: every rank that is left ends in torch's error within the group's time-out."""

from __future__ import annotations

import os
from datetime import timedelta

import pytest
import torch.distributed as dist

from svmax_ops import svmax_loss
from tests import truth


def group_in_use() -> dist.ProcessGroup:
    """A group whose ranks have agreed about d = 8 and d = 6, and from now on wait four seconds for each other."""
    group = dist.new_group()
    for d in (8, 6):
        svmax_loss(truth.random(5, d), group=group)
    group.set_timeout(timedelta(seconds=4))  # not before: a busy machine may take longer to bring them together
    return group


def ends_in_an_error(d: int, group: dist.ProcessGroup) -> None:
    """Or would hang, as the group of all processes waits longer than they may live."""
    with pytest.raises(RuntimeError, match=r"gloo|[Tt]imed? ?out|[Cc]onnection"):
        svmax_loss(truth.random(5, d), group=group)


def a_rank_that_does_not_come(rank: int, world: int) -> None:
    group = group_in_use()
    if rank != 1:
        ends_in_an_error(8, group)


def a_rank_that_goes_on_where_others_ask_for_agreement(rank: int, world: int) -> None:
    ends_in_an_error(8 if rank == 1 else 4, group_in_use())


def a_rank_that_dies(rank: int, world: int) -> None:
    group = group_in_use()
    if rank == 1:
        os._exit(9)
    ends_in_an_error(8, group)


def ranks_that_disagree_about_what_was_agreed_before(rank: int, world: int) -> None:
    ends_in_an_error(6 if rank == 1 else 8, group_in_use())
