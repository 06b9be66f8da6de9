"""The bound-checking experiment; the same as ``arvdm verify``. Usage: python experiments/verify.py [--size ...]"""

import sys

from arvdm_theory.cli import main

if __name__ == "__main__":
    sys.exit(main(["verify", *sys.argv[1:]]))
