"""The command line as a module: `python -m fpflow --help`."""

import sys

from ._cli import main

if __name__ == "__main__":
    sys.exit(main())
