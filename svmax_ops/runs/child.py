"""One run of several, as a process of its own that stops, with its checkpoint, when the one that started it ends."""

import sys

from svmax_ops.cli import main
from svmax_ops.runs.signals import end_with_parent

if __name__ == "__main__":
    parent, *arguments = sys.argv[1:]
    end_with_parent(int(parent))
    sys.exit(main(arguments))
