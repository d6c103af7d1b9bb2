"""The list of instances of a VNN-COMP benchmark: instances.csv."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import SpecError
from .read import packed_path

if TYPE_CHECKING:
    import os


@dataclass(frozen=True)
class Instance:
    """One row of instances.csv.

    networks      the network files, each with the name that the query gives it (None: the only one).
    query         the VNN-LIB file.
    timeout       seconds.
    network_text, query_text  the first two fields as written, which identify the instance in result tables.
    """

    networks: tuple[tuple[str | None, Path], ...]
    query: Path
    timeout: float
    network_text: str
    query_text: str


def read_instances(path: str | os.PathLike[str]) -> tuple[Instance, ...]:
    """Read ``instances.csv``, given its path or the folder that it lies in.

    Files are named relative to that folder; where only ``NAME.gz`` exists, that is taken. Files need not exist: whoever
    opens one reports it missing.

    Raises:
        SpecError: if the list is missing or a row is malformed; with the line.
    """
    listing = Path(path)
    if listing.is_dir():
        listing = listing / "instances.csv"
    try:
        text = listing.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as problem:
        reason = "it is not text" if isinstance(problem, UnicodeDecodeError) else getattr(problem, "strerror", problem)
        raise SpecError(f"{listing}: cannot be read: {reason}") from None
    instances = []
    reader = csv.reader(text.splitlines(), skipinitialspace=True)
    try:
        for row in reader:
            fields = [field.strip() for field in row]
            if any(fields):
                instances.append(_instance(listing, reader.line_num, fields))
    except csv.Error as problem:
        raise SpecError(f"{listing}:{reader.line_num}: {problem}") from None
    return tuple(instances)


def _instance(listing: Path, line: int, row: list[str]) -> Instance:
    if len(row) < 3 or not row[0] or not row[1]:
        raise SpecError(f"{listing}:{line}: a row reads ONNX,VNNLIB,SECONDS; this one has {len(row)} fields")
    try:
        timeout = float(row[2])
    except ValueError:
        timeout = math.nan
    if not 0 < timeout < math.inf:
        raise SpecError(f"{listing}:{line}: the time limit {row[2]!r} is not a positive number of seconds")
    networks = tuple((name, packed_path(listing.parent / file)) for name, file in _networks(listing, line, row[0]))
    return Instance(networks, packed_path(listing.parent / row[1]), timeout, row[0], row[1])


def _networks(listing: Path, line: int, text: str) -> list[tuple[str | None, str]]:
    """The network files of the first field: a file name, or a list of pairs (name, file name) in Python's notation."""
    if not text.startswith("["):
        return [(None, text)]
    import ast

    try:
        pairs = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        pairs = None
    if (
        not isinstance(pairs, list)
        or not pairs
        or not all(isinstance(pair, (tuple, list)) and len(pair) == 2 for pair in pairs)
        or not all(isinstance(part, str) and part for pair in pairs for part in pair)
    ):
        raise SpecError(f"{listing}:{line}: several networks are listed as [('f', 'f.onnx'), ('g', 'g.onnx')]")
    return [(name, file) for name, file in pairs]
