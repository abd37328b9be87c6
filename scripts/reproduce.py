"""The paper's tables and figures: `fpflow reproduce` under the name that needs no installed command."""

import sys

from fpflow._cli import main

if __name__ == "__main__":
    sys.exit(main(["reproduce", *sys.argv[1:]]))
