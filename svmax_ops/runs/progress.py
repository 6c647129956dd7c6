"""How far a run is, for whoever watches it."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator, Mapping

from tqdm import tqdm

PLAIN_LINE_SECONDS = 10.0
_SHORTEST_BAR = 10


class Progress:
    """A bar with the rate on a terminal, a plain line every ten seconds elsewhere.

    Args:
        total: steps of the whole run.
        done: of them, those of an earlier start.
        images: in a step; their rate is shown. None: of the steps alone.
        plain_seconds: between plain lines.
        shown: False where another process speaks to the user.
    """

    def __init__(
        self,
        total: int,
        done: int,
        images: int | None = None,
        plain_seconds: float = PLAIN_LINE_SECONDS,
        shown: bool = True,
    ) -> None:
        self.total, self.first, self.images, self.shown = total, done, images, shown
        self.started = self.last_line = time.monotonic()
        self.plain_seconds = plain_seconds
        terminal = shown and sys.stdout.isatty()
        self.bar = _Bar(total=total, initial=done, file=sys.stdout, nrows=20) if terminal else None

    def update(self, done: int, values: Mapping[str, str]) -> None:
        """``done`` steps are finished; ``values`` are the latest numbers to show, the most important ones first."""
        if not self.shown:
            return
        rate = (done - self.first) / max(time.monotonic() - self.started, 1e-9)
        speed = {} if self.images is None else {"images/s": f"{self.images * rate:.0f}"}
        if self.bar is not None:
            self.bar.values, self.bar.speed = values, speed
            self.bar.update(done - self.bar.n)
            return
        now = time.monotonic()
        if now - self.last_line >= self.plain_seconds or done == self.total:
            self.last_line = now
            text = "  ".join(f"{name} {value}" for name, value in {**values, **speed}.items())
            print(f"step {done}/{self.total}  {text}  {rate:.1f} it/s", flush=True)

    def say(self, text: str) -> None:
        """Print a line without tearing the bar."""
        if self.bar is not None:
            self.bar.write(text)
        else:
            print(text, flush=True)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


class _Bar(tqdm):
    """One that gives way to the numbers behind it where the line is too short for both."""

    values: Mapping[str, str] = {}
    """The numbers, the most important ones first."""
    speed: Mapping[str, str] = {}
    """What is shown behind them."""

    def __str__(self) -> str:
        # 80 where the terminal says 0, as docker -t makes one; without the last, where some begin a new line.
        columns = shutil.get_terminal_size().columns - 1
        for text in self._from_long_to_short():
            if len(text) <= columns:
                break
        else:
            return text[:columns]
        room = columns - len(text) - 3
        if room < _SHORTEST_BAR or "%" not in text:
            return text
        return f"{text[:4]} |{self._part('{bar}', ncols=room)}|{text[4:]}"

    def _from_long_to_short(self) -> Iterator[str]:
        """The line without a bar, with less and less in it."""
        values, speed = ([f"{name} {value}" for name, value in part.items()] for part in (self.values, self.speed))
        whole = self._part("{percentage:3.0f}% {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}]")
        short = self._part("{n_fmt}/{total_fmt} [<{remaining}]")
        yield "  ".join([whole, *values, *speed])
        yield "  ".join([short, *values, *speed])
        while values:
            values.pop()
            yield "  ".join([short, *values, *speed])

    def _part(self, wanted: str, ncols: int | None = None) -> str:
        return self.format_meter(**{**self.format_dict, "bar_format": wanted, "ncols": ncols})
