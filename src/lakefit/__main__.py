"""`python -m lakefit`."""

import sys

from lakefit.cli import main

if __name__ == "__main__":
    sys.exit(main())
