"""``python -m svmax_ops`` is ``svmax``."""

import sys

from svmax_ops.cli import main

if __name__ == "__main__":
    sys.exit(main())
