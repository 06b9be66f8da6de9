"""``python -m arvdm_theory``: the same as ``arvdm``."""

import sys

from arvdm_theory.cli import main

if __name__ == "__main__":
    sys.exit(main())
