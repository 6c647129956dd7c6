"""Runs checks on the ranks of a gloo process group: one start of the processes for many checks.

A check is a function ``(rank, world)`` of a module here that raises on a rank where its claim does not hold.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import traceback
from datetime import timedelta
from pathlib import Path

ROOT = Path(__file__).parents[2]
ON_EACH_RANK = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}


def start(world: int, folder: Path, *arguments: str) -> list[subprocess.Popen[bytes]]:
    """One Python process for each rank, with ``arguments`` behind rank, world and folder."""
    environment = os.environ | ON_EACH_RANK | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error:::svmax_ops", "-m", "tests.distributed.processes"]
    processes = []
    for rank in range(world):
        with (folder / f"{rank}.log").open("wb") as log:
            line = [*command, str(rank), str(world), str(folder), *arguments]
            processes.append(subprocess.Popen(line, env=environment, stdout=log, stderr=log))
    return processes


def run(module: str, checks: list[str], world: int, folder: Path, timeout: int = 600, limit: int = 1200) -> list[dict]:
    """For each rank: check -> None where it held there, or the traceback. A check that was not reached is missing.

    After a check that fails on any rank no further one is run: the ranks may be out of step. ``timeout`` is the
    group's, ``limit`` that of each process, in seconds: what is beyond them hangs, also on a machine that is busy.
    """
    processes = start(world, folder, str(timeout), module, *checks)
    try:
        for process in processes:
            process.wait(limit)
    finally:
        for process in processes:
            process.kill()
    results = []
    for rank in range(world):
        lines = (folder / f"{rank}.json").read_text().splitlines() if (folder / f"{rank}.json").exists() else []
        found = dict(json.loads(line) for line in lines)
        results.append(found | {"log": (folder / f"{rank}.log").read_text(errors="replace")[-3000:]})
    return results


def assert_held(check: str, results: list[dict]) -> None:
    for rank, result in enumerate(results):
        assert check in result, f"rank {rank} did not get to it:\n{result['log']}"
        assert result[check] is None, f"rank {rank}:\n{result[check]}"


def main(rank: int, world: int, folder: Path, timeout: int, module: str, checks: list[str]) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    limit = timedelta(seconds=timeout)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world, timeout=limit)
    in_step = dist.new_group(timeout=3 * limit)  # a rank may wait for another's time to run out
    functions = importlib.import_module(module)
    with (folder / f"{rank}.json").open("w") as file:
        for check in checks:
            failure = None
            try:
                getattr(functions, check)(rank, world)
            except Exception:
                failure = traceback.format_exc()
            print(json.dumps([check, failure]), file=file, flush=True)
            failed = torch.tensor(failure is not None, dtype=torch.int)
            dist.all_reduce(failed, group=in_step)
            if failed:
                break
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]), sys.argv[5], sys.argv[6:])
