"""A witness as ONNX `TensorProto` files, the VNN-LIB 2.0 standard's way of serialising an assignment."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ...verify.atomic import write_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from ...verify.result import Witness


def write_assignments(folder: Path, witness: Witness) -> list[Path]:
    """Write every tensor as ``FOLDER/NAME.pb``; the folder is made where it is absent. Returns the files."""
    from onnx import numpy_helper

    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for name, values in (*witness.inputs, *witness.outputs):
        file = folder / f"{_file_name(name)}.pb"
        while file in written:
            # Two names may differ only in what a path cannot hold.
            file = file.with_name(f"_{file.name}")
        write_bytes(file, numpy_helper.from_array(np.asarray(values), name).SerializeToString())
        written.append(file)
    return written


def _file_name(tensor: str) -> str:
    """The tensor's name with characters that mean something in a path replaced."""
    return "".join(character if character.isalnum() or character in "._-" else "_" for character in tensor)
