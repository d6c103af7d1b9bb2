"""Lists the installed packages whose versions differ from those in a constraints file.

Usage: differing.py CONSTRAINTS, with the Python of the environment to look at. A line for each; local versions (+cpu)
and packages that are not installed do not count.
"""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def main(constraints: Path) -> None:
    for line in constraints.read_text().splitlines():
        name, separator, pinned = line.partition("==")
        if line.startswith("#") or not separator:
            continue
        try:
            installed = version(name).partition("+")[0]
        except PackageNotFoundError:
            continue
        if installed != pinned:
            print(f"{name} {installed} (tested: {pinned})")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
