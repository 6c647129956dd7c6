"""How accurate the nuclear norm and its gradient are on every spectrum, beside torch's float32 SVD.

python -m benchmarks.accuracy [--out OUT]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import svmax_ops
from benchmarks.machine import RESULTS, machine, text_table, write_rows
from benchmarks.matrices import polar_error, spectra

TORCH = "torch float32 SVD"


def torch_nuclear_norm(x: Tensor) -> Tensor:
    return torch.linalg.svdvals(x).sum()


def providers() -> dict[str, Callable[[Tensor], Tensor]]:
    """The float32 SVD, then each backend that this machine has."""

    def on(backend: str) -> Callable[[Tensor], Tensor]:
        return svmax_ops.use_backend(backend)(svmax_ops.nuclear_norm)

    available = [name for name, reason in svmax_ops.available_backends().items() if reason == "ok"]
    return {TORCH: torch_nuclear_norm, **{f"svmax_ops {name}": on(name) for name in available}}


def measure(name: str, case: np.ndarray) -> list[dict[str, Any]]:
    """One row a provider: errors against the float64 SVD of the same float32 numbers."""
    x = torch.from_numpy(case / np.linalg.norm(case, axis=1, keepdims=True)).float().requires_grad_()
    full = x.detach().double().numpy()
    s = np.linalg.svd(full, compute_uv=False)
    rows = []
    for provider, nuclear_norm in providers().items():
        value = nuclear_norm(x)
        (p,) = torch.autograd.grad(value, x)
        error = polar_error(p.double().numpy(), full)
        rows.append(
            {
                "case": name,
                "shape": "x".join(map(str, case.shape)),
                "condition_of_gram": float(f"{min((s[0] / max(s[-1], 1e-99)) ** 2, 1e99):.0e}"),
                "provider": provider,
                "error_of_nuclear_norm": float(f"{abs(value.item() / s.sum() - 1):.1e}"),
                "error_of_gradient": float(f"{error.in_directions:.1e}"),
                "directions": error.directions,
                "excess_of_norm": float(f"{error.excess:.1e}"),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULTS / "accuracy", help="writes OUT.json and OUT.csv")
    options = parser.parse_args()
    rows = [row for name, case in spectra().items() for row in measure(name, case)]
    header = ["case", "provider", "error of N", "error of P where s > 1e-4 s_1", "directions", "||P|| - 1"]
    columns = ["case", "provider", "error_of_nuclear_norm", "error_of_gradient", "directions", "excess_of_norm"]
    print(text_table(header, [[str(row[column]) for column in columns] for row in rows]))
    write_rows(options.out, machine(), rows)


if __name__ == "__main__":
    main()
