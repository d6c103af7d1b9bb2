"""Time our bounds on the boxes and rows of `../shared/reference/micro`, beside the recorded figures of auto_LiRPA.

usage: python benchmarks/perf/micro.py [--shared FOLDER] [--networks SUBSTRING] [--threads N] [--runs N]

Prints one line a network, batch and method: seconds a call (minimum and median), boxes a second, the mean lower bound,
and the same of the recorded engine with the ratio of the minimum times. Batches are shared among our own threads, so
BLAS keeps to one.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from boundsmith.cli.process import prepare_process

prepare_process()

import numpy as np
from boundsmith.verify.arrays import Backend
from boundsmith.verify.bounding.alpha_crown import alpha_crown
from boundsmith.verify.bounding.crown import relax, row_bounds
from boundsmith.verify.bounding.interval import interval_bounds
from boundsmith.verify.bounding.plan import make_plan
from boundsmith.verify.bounding.workers import Workers
from boundsmith.verify.loading.network import load
from boundsmith.verify.problem import flatten

FILES = {
    "acasxu_1_1": "acasxu/onnx/ACASXU_run2a_1_1_batch_2000.onnx",
    "mnist_256x4": "mnist_fc/onnx/mnist-net_256x4.onnx",
    "oval_base_kw": "oval21/onnx/cifar_base_kw.onnx",
    "sri_resnet_3b2": "sri_resnet_a/onnx/resnet_3b2_bn_mixup_adv_4.0_bs128_lr-1.onnx",
}
METHODS = {"IBP": "IBP", "CROWN-IBP": "CROWN-IBP", "CROWN": "CROWN", "alpha-CROWN-20": "alpha-20"}
CHUNK = {"acasxu_1_1": 512, "mnist_256x4": 8, "oval_base_kw": 4, "sri_resnet_3b2": 1}


def lower_bounds(plan, lower, upper, rows, method, workers=None):
    """Lower bounds ``[B, S]`` of ``rows f(x)`` by one of the recorded methods."""
    if method == "IBP":
        low, high = interval_bounds(plan.graph, lower, upper)[plan.output]
        positive, negative = np.maximum(rows, 0), np.minimum(rows, 0)
        return low @ positive.T + high @ negative.T
    if method == "alpha-20":
        return alpha_crown(plan, lower, upper, rows, steps=20, workers=workers)
    state = relax(plan, lower, upper, refine=method == "CROWN", workers=workers)
    return row_bounds(state, rows[None], np.zeros((1, len(rows)), rows.dtype)).lower


def timed(call, runs):
    """Seconds of each of `runs` calls after one warm-up, and the last answer."""
    answer = call()
    seconds = []
    for _ in range(runs):
        begin = time.perf_counter()
        answer = call()
        seconds.append(time.perf_counter() - begin)
    return seconds, answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--shared", type=Path, default=Path(__file__).resolve().parents[2] / ".." / "shared")
    parser.add_argument("--networks", default="")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args()
    folder = options.shared / "reference" / "micro"
    with open(folder / "auto_lirpa.csv") as file:
        recorded = list(csv.DictReader(file))
    pool = ThreadPoolExecutor(options.threads)
    print(
        f"{'network':15} {'batch':>5} {'method':10} {'min s':>9} {'median s':>9} {'boxes/s':>9} {'mean lower':>12} "
        f"{'their min s':>11} {'their mean':>12} {'ratio':>7}"
    )
    for name, file in FILES.items():
        if options.networks not in name:
            continue
        plan = make_plan(Backend("float32").graph(flatten(load(options.shared / "vnncomp" / file, check=False).graph)))
        data = np.load(folder / f"{name}.npz")
        size = plan.graph.nodes[plan.input].size
        low, high = (data[key].reshape(len(data[key]), size).astype(np.float32) for key in ("lo", "hi"))
        rows = data["C"].reshape(-1, plan.graph.nodes[plan.output].size).astype(np.float32)
        theirs = [r for r in recorded if Path(r["network"]).name == Path(file).name and r["conv_mode"] != "matrix"]
        for row in theirs:
            method = METHODS.get(row["method"])
            batch = int(row["batch"])
            if method is None or batch > len(low):
                continue

            # Boxes are shared among the threads, and the rows of a single box.
            chunk = min(CHUNK[name], -(-batch // options.threads))

            def call(batch=batch, method=method, plan=plan, low=low, high=high, rows=rows, chunk=chunk):
                if batch == 1:
                    return lower_bounds(plan, low[:1], high[:1], rows, method, Workers(pool, options.threads))
                starts = range(0, batch, chunk)
                parts = pool.map(
                    lambda s: lower_bounds(
                        plan, low[s : min(s + chunk, batch)], high[s : min(s + chunk, batch)], rows, method
                    ),
                    starts,
                )
                return np.concatenate(list(parts))

            seconds, answer = timed(call, options.runs)
            best = min(seconds)
            print(
                f"{name:15} {batch:5} {method:10} {best:9.5f} {statistics.median(seconds):9.5f} {batch / best:9.0f} "
                f"{answer.mean():12.5f} {float(row['min_s']):11.5f} {float(row['mean_lower']):12.5f} "
                f"{float(row['min_s']) / best:7.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
