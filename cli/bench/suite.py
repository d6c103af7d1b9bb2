"""Finding the instances of a folder in VNN-COMP layout: one set, or a folder of sets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...specs.errors import SpecError
from ...specs.instances import read_instances

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

INSTANCES = "instances.csv"
EXPECTED = "expected.csv"


@dataclass(frozen=True)
class Instance:
    """One row of a set's `instances.csv`.

    set, onnx, vnnlib   its name: the set, and the network and query as written in the row.
    timeout             seconds.
    networks, query     the files: networks by the name that the query gives them (empty: the only one).
    label               a name for files about the instance.
    """

    set: str
    onnx: str
    vnnlib: str
    timeout: float
    networks: dict[str, Path]
    query: Path
    label: str

    @property
    def key(self) -> tuple[str, str, str]:
        """What names the instance."""
        return self.set, self.onnx, self.vnnlib


def find_sets(folder: Path, wanted: Sequence[str] = ()) -> dict[str, Path]:
    """The sets in `folder` (itself, or its subfolders with an `instances.csv`) by name, sorted.

    Raises SpecError if there is none, or a wanted one is missing.
    """
    if not folder.is_dir():
        raise SpecError(f"{folder} is not a folder")
    if (folder / INSTANCES).is_file():
        found = {folder.resolve().name: folder}
    else:
        found = {inner.name: inner for inner in sorted(folder.iterdir()) if (inner / INSTANCES).is_file()}
    if not found:
        raise SpecError(f"{folder} holds no {INSTANCES}, nor does any folder in it")
    missing = [name for name in wanted if name not in found]
    if missing:
        raise SpecError(f"{folder} has no set {', '.join(missing)}; it has {', '.join(found)}")
    return {name: inner for name, inner in found.items() if not wanted or name in wanted}


def find_expected(folder: Path) -> Path | None:
    """The table of expected answers that lies in a folder of instances, or beside it."""
    for place in (folder, folder.resolve().parent):
        if (place / EXPECTED).is_file():
            return place / EXPECTED
    return None


def read_suite(folder: Path, sets: Sequence[str] = (), every: int = 1, limit: int | None = None) -> list[Instance]:
    """All instances, or of every set each `every`-th row and of those the first `limit`.

    Raises SpecError for a row that is none, or that names an instance twice.
    """
    instances: list[Instance] = []
    for name, inner in find_sets(folder, sets).items():
        instances += _read_set(name, inner)[::every][:limit]
    return instances


def _read_set(name: str, folder: Path) -> list[Instance]:
    rows = {}
    for position, row in enumerate(read_instances(folder / INSTANCES)):
        instance = Instance(
            name,
            row.network_text,
            row.query_text,
            row.timeout,
            {network or "": file for network, file in row.networks},
            row.query,
            f"{name}-{position:04}",
        )
        if instance.key in rows:
            raise SpecError(f"{folder / INSTANCES} lists {row.network_text} {row.query_text} twice")
        rows[instance.key] = instance
    return list(rows.values())
