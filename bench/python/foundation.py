"""The figures that the package as a whole promises: import, call, threads beside torch, memory.

    python bench/python/foundation.py [--json FILE]

Needs torch; every figure is printed with its limit. Import times are taken in fresh processes, in
turn with the same process without slipstick; memory is the peak of a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import slipstick
from slipstick.bench import Case, machine, measure


def process(code: str) -> str:
    """What a fresh Python prints."""
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout


def import_seconds() -> dict[str, float]:
    """Seconds that `import slipstick` takes beyond `import numpy`: median of 15 fresh processes."""
    code = (
        "import numpy, time; start = time.perf_counter(); import slipstick; "
        "print(time.perf_counter() - start)"
    )
    return {"import beyond numpy, s": statistics.median(float(process(code)) for _ in range(15))}


def call_microseconds() -> dict[str, float]:
    """What a call on 16 elements costs beyond the NumPy function beside it, in microseconds."""
    a = np.linspace(1, 2, 16, dtype=np.float32)
    matrix = a.reshape(4, 4)
    pairs = {
        "multiply": (lambda: slipstick.mitchell.multiply(a, a), lambda: np.multiply(a, a)),
        "divide": (lambda: slipstick.mitchell.divide(a, a), lambda: np.divide(a, a)),
        "matmul": (lambda: slipstick.mitchell.matmul(matrix, matrix), lambda: matrix @ matrix),
        "softmax": (lambda: slipstick.softmax(a, scale=1.0), lambda: np.exp(a)),
        "project": (lambda: slipstick.projection.project(a, 4), lambda: np.dot(matrix, a[:4])),
    }
    figures = {}
    for name, (own, peer) in pairs.items():
        timing = measure(Case(name, 16, "element", {"own": own, "numpy": peer}), rounds=31)
        beyond = timing.seconds["own"] - timing.seconds["numpy"]
        figures[f"{name} beyond NumPy, us"] = 1e6 * beyond
    return figures


def multiply_ratio() -> dict[str, float]:
    """Speed of `multiply` on 2^24 float32 as a multiple of numpy.multiply's."""
    a, b = np.random.default_rng(0).standard_normal((2, 1 << 24)).astype(np.float32)
    out = np.empty_like(a)
    contenders = {
        "own": lambda: slipstick.mitchell.multiply(a, b, out=out),
        "numpy": lambda: np.multiply(a, b, out=out),
    }
    timing = measure(Case("multiply", a.size, "element", contenders), rounds=31)
    return {"multiply, speed over numpy.multiply": timing.seconds["numpy"] / timing.seconds["own"]}


ALTERNATE = """
import time, statistics
{imports}
import numpy as np
rng = np.random.default_rng(0)
a, b = rng.standard_normal((2, 384, 384)).astype(np.float32)
left, right = torch.from_numpy(a), torch.from_numpy(b)
big = rng.standard_normal(1 << 20).astype(np.float32)
out = np.empty_like(big)
own = lambda: slipstick.mitchell.multiply(big, big, out=out)
peer = lambda: torch.mm(left, right)
def timed(*calls):
    start = time.perf_counter()
    for _ in range(40):
        for call in calls:
            call()
    return (time.perf_counter() - start) / 40
timed(own, peer)
ratios = []
for _ in range(25):
    alone = timed(own) + timed(peer)
    ratios.append(timed(own, peer) / alone)
print(statistics.median(ratios))
"""


def alternation() -> dict[str, float]:
    """Time of calls in turn with torch over the sum of the two alone, in both import orders."""
    figures = {}
    for first, second in (("slipstick", "torch"), ("torch", "slipstick")):
        code = ALTERNATE.format(imports=f"import {first}\nimport {second}")
        figures[f"alternating with torch, {first} first"] = float(process(code))
    return figures


PEAK = """
import sys
import numpy as np, slipstick
def peak():
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
n = int(sys.argv[1])
q, k, v = np.random.default_rng(0).standard_normal((3, 1, 1, n, 64), dtype=np.float32)
slipstick.attention(q[..., :999, :], k[..., :999, :], v[..., :999, :])  # threads and libraries
open("/proc/self/clear_refs", "w").write("5")  # the peak is from here on
before = peak()
slipstick.attention(q, k, v, causal=True)
print(peak() - before)
"""


def attention_memory() -> dict[str, float]:
    """Peak memory of one causal head, result included, in MiB; N x N would be 1024 at 16384."""
    figures = {}
    for tokens in (4096, 8192, 16384):
        command = [sys.executable, "-c", PEAK, str(tokens)]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        figures[f"attention at N = {tokens}, MiB beyond inputs"] = float(output)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    start = time.perf_counter()
    figures: dict[str, float] = {}
    for part in (import_seconds, call_microseconds, multiply_ratio, alternation, attention_memory):
        for name, value in part().items():
            print(f"{name:50} {value:10.3f}", flush=True)
            figures[name] = value
    facts = machine() | {"load before": str(os.getloadavg())}
    if options.json:
        options.json.write_text(json.dumps({"machine": facts, "figures": figures}, indent=2) + "\n")
    print(f"{time.perf_counter() - start:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
