"""How a number is named and written, the same wherever a user meets it: in progress, tables and figures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple


class Measure(NamedTuple):
    name: str
    digits: int | None = None
    """After the point; from 1,000 on two digits in all. None: always three in all."""
    unit: str = ""
    scale: float = 1
    """What a logged value is multiplied by."""

    @property
    def heading(self) -> str:
        """Of a column or an axis: "R@1 %"."""
        return f"{self.name} {self.unit}".rstrip()

    def text(self, value: float | None) -> str:
        """The number alone: "12.3"; "not finite" for None too, which is how JSON has what is not."""
        if value is None or not math.isfinite(value):
            return "not finite"
        scaled = self.scale * value
        if self.digits is None:
            return f"{scaled:,.3g}"
        return f"{scaled:.{self.digits}f}" if abs(scaled) < 1000 else f"{scaled:.2g}"

    def told(self, value: float | None) -> str:
        """With its name: "R@1: 12.3 %"."""
        return f"{self.name}: {self.text(value)} {self.unit}".rstrip()


def told(measures: Mapping[str, Measure], line: Mapping[str, Any]) -> str:
    """Those of ``measures`` that a line of metrics.jsonl has, each by its key there, as one line of text."""
    return "  ".join(measure.told(line[name]) for name, measure in measures.items() if name in line)
