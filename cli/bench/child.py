"""The process of one instance: ``python -m boundsmith.cli.bench.child``, the command line of a `bench` that watches it.

Its standard input is a pipe that `bench` holds open: when that ends, however `bench` ended, this process ends too.
"""

from __future__ import annotations

import sys

from ...verify.lifeline import die_with_parent, end_when_closed
from ..main import main

if __name__ == "__main__":
    die_with_parent()
    end_when_closed(sys.stdin.buffer)
    main()
