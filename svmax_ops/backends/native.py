"""Loads the native library; later serves its ops."""

from __future__ import annotations

DEVICES = frozenset({"cpu", "meta"})
unavailable: str | None = "the native library is not built yet"


def describe() -> dict[str, str]:
    """What ``svmax info`` prints of the native library."""
    return {"library": f"not available: {unavailable}"}
