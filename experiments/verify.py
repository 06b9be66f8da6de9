"""The bound-checking experiment, ``arvdm verify``. Usage: python experiments/verify.py [--preset ...]"""

import sys

from arvdm_theory.cli import main

if __name__ == "__main__":
    sys.exit(main(["verify", *sys.argv[1:]]))
