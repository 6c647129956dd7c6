"""``svmax info``: what to paste into a bug report. It needs the package alone, no extra."""

from __future__ import annotations

import dataclasses
import platform

import svmax_ops
from svmax_ops.backend_names import NAMES, VARIABLE, asked_by_environment


@dataclasses.dataclass(frozen=True)
class InfoConfig:
    """Versions, native libraries and backends: what to paste into a bug report."""

    def check(self) -> None:
        """Nothing can be wrong: there are no options."""


def info(config: InfoConfig) -> None:
    """Print the facts, one a line."""
    import torch  # here: --help does not wait for it

    from svmax_ops.backends import BACKENDS, cuda_library

    rows = {
        "svmax_ops": svmax_ops.__version__,
        "Python": f"{platform.python_version()} on {platform.platform()}",
        "torch": torch.__version__,
        "CUDA of torch": f"{torch.version.cuda or 'none'}, {torch.cuda.device_count()} devices",
        **{f"GPU {index}": cuda_library.gpu(index)[0] for index in range(torch.cuda.device_count())},
        **{name: text for backend in BACKENDS for name, text in backend.describe().items()},
        **{f"backend {name}": text for name, text in svmax_ops.available_backends().items()},
        VARIABLE: _asked(asked_by_environment()),
    }
    width = max(map(len, rows))
    for name, text in rows.items():
        print(f"{name:<{width}}  {text}")


def _asked(name: str | None) -> str:
    if name is None:
        return "not set"
    return name if name in NAMES else f"unknown backend {name!r}; accepted: {', '.join(NAMES)}"
