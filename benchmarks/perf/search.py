"""Domains a second and where a search's time goes, for a dense, a convolutional and a residual network.

usage: python benchmarks/perf/search.py [--shared FOLDER] [--seconds N] [--threads N] [--lines N] [--device cpu|cuda]

Runs `verify` with activation splits on three instances of `../shared/vnncomp`; prints the verdict, domains, domains a
second, the share of the threads' time outside the bound kernels, and then, from a second run on one thread under
cProfile, the functions with the largest own time.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
from pathlib import Path

from boundsmith.cli.process import prepare_process

prepare_process()

from boundsmith.verify.budget import Deadline
from boundsmith.verify.options import Options
from boundsmith.verify.strategy import verify_files

INSTANCES = {
    "dense": ("mnist_fc", "mnist-net_256x4.onnx.gz", "prop_10_0.05.vnnlib.gz"),
    "convolutional": ("oval21", "cifar_base_kw.onnx.gz", "cifar_base_kw-img876-eps0.024836601307189544.vnnlib.gz"),
    "residual": (
        "sri_resnet_a",
        "resnet_3b2_bn_mixup_adv_4.0_bs128_lr-1.onnx.gz",
        "cifar10_spec_idx_5702_eps_0.00350.vnnlib.gz",
    ),
}


def run(folder: Path, network: str, query: str, options: Options):
    """The result of one query."""
    files = {"": folder / "onnx" / network}
    return verify_files(folder / "vnnlib" / query, files, options, Deadline.after(options.timeout))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--shared", type=Path, default=Path(__file__).resolve().parents[2] / ".." / "shared")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--lines", type=int, default=12)
    parser.add_argument("--device", default="cpu")
    chosen = parser.parse_args()
    settings = {"timeout": chosen.seconds, "method": "activation-split", "attack": False, "device": chosen.device}
    for kind, (name, network, query) in INSTANCES.items():
        where = chosen.shared / "vnncomp" / name, network, query
        result = run(*where, Options(threads=chosen.threads, **settings))
        (phase,) = (phase for phase in result.phases if phase.name == "activation split")
        print(
            f"{kind} ({name} {network} {query}): {result.verdict.value}, {phase.domains} domains in "
            f"{phase.seconds:.1f} s, {phase.domains / phase.seconds:.0f} a second, outside kernels "
            f"{100 * result.details.get('share outside kernels', 0.0):.0f} %, {chosen.threads} threads, {result.device}"
        )
        profile = cProfile.Profile()
        profile.runcall(run, *where, Options(threads=1, **settings))
        stats = pstats.Stats(profile)
        total = stats.total_tt
        functions = sorted(stats.stats.items(), key=lambda item: -item[1][2])[: chosen.lines]
        for (file, line, function), (_, calls, own, _, _) in functions:
            print(f"  {100 * own / total:5.1f} %  {calls:8d} calls  {Path(file).name}:{line} {function}")


if __name__ == "__main__":
    main()
