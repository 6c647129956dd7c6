"""What people call the two halves of a data set."""

from __future__ import annotations

WORDS = {
    "train": ("train", "training"),
    "test": ("test", "testing"),
    "val": ("val", "valid", "validation"),
}
TRAIN, TEST, VALIDATION = WORDS


def split_of(word: str) -> str | None:
    """``TRAIN``, ``TEST`` or ``VALIDATION``; None: the word is none of them. Case does not count."""
    return next((split for split, words in WORDS.items() if word.lower() in words), None)
