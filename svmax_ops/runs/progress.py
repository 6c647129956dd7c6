"""How far a run is, for whoever watches it."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

from tqdm import tqdm

PLAIN_LINE_SECONDS = 10.0


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
        self.bar = tqdm(total=total, initial=done, unit="it", file=sys.stdout, dynamic_ncols=True) if terminal else None

    def update(self, done: int, values: Mapping[str, str]) -> None:
        """``done`` steps are finished; ``values`` are the latest numbers to show, by name."""
        if not self.shown:
            return
        rate = (done - self.first) / max(time.monotonic() - self.started, 1e-9)
        shown = dict(values)
        if self.images is not None:
            shown["images/s"] = f"{self.images * rate:.0f}"
        if self.bar is not None:
            self.bar.set_postfix(shown, refresh=False)
            self.bar.update(done - self.bar.n)
            return
        now = time.monotonic()
        if now - self.last_line >= self.plain_seconds or done == self.total:
            self.last_line = now
            text = "  ".join(f"{name} {value}" for name, value in shown.items())
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
