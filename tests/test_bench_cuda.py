"""The benchmarks of CUDA where there is no device: every call, the clock, and one sentence."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("ml_dtypes")
pytest.importorskip("threadpoolctl")

FOLDER = Path(__file__).parent.parent / "bench" / "python"


@pytest.fixture(scope="module")
def bench():
    """The modules of bench/python, which find each other as a script's neighbours do."""
    before = dict(sys.modules)
    sys.path.insert(0, str(FOLDER))
    import cuda_attention  # noqa: F401
    import cuda_clock
    import cuda_mitchell
    import cuda_projection  # noqa: F401

    yield cuda_clock, cuda_mitchell
    sys.path.remove(str(FOLDER))
    for name in set(sys.modules) - set(before):
        if (
            getattr(sys.modules[name], "__file__", None)
            and str(FOLDER) in sys.modules[name].__file__
        ):
            del sys.modules[name]


def few(size):
    return min(size, 24)


def small(dtype, *shape, seed=0):
    """What the benchmark makes on a device, on the CPU and with few numbers an axis."""
    torch.manual_seed(seed)
    if len(shape) == 4:  # images and kernels keep their channels
        shape = [min(shape[0], 2) if shape[2] > 3 else shape[0], shape[1], *map(few, shape[2:])]
    else:
        shape = [few(size) for size in shape]
    kind = getattr(torch, dtype)
    if kind.is_floating_point:
        return torch.randn(shape).to(kind)
    limits = torch.iinfo(kind)
    return torch.randint(limits.min, limits.max + 1, shape, dtype=kind)


def test_every_case_runs(bench, monkeypatch):
    """Each contender once: what is timed exists and accepts what it is given."""
    _, cases = bench
    monkeypatch.setattr(cases, "random", small)
    names = []
    for task in cases.tasks():
        contenders = task.make()
        assert next(iter(contenders)) == "slipstick"
        for contender in contenders.values():
            contender.call()
        names.append(task.name)
    assert len(set(names)) == len(names)


@pytest.fixture
def attention_bench(bench, monkeypatch):
    """The benchmark of attention, on the CPU, where torch's flash backend and FlexAttention are."""
    cases, peers = sys.modules["cuda_attention"], sys.modules["cuda_attention_peers"]

    def small(*shape, seed=0, dtype=torch.bfloat16):
        torch.manual_seed(seed)
        batch, heads, tokens, dim = shape
        return torch.randn(min(batch, 2), heads, few(tokens), dim).to(dtype)

    monkeypatch.setattr(cases, "random", small)
    monkeypatch.setattr(peers, "compiled", lambda: peers.flex_attention)
    return cases


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_every_case_of_attention_runs(attention_bench):
    """What all the contenders give is near to what float64 gives for the same rows."""
    names, seen = [], set()
    for task in attention_bench.tasks():
        names.append(task.name)
        if re.search(r" (d128 N|N(?!8192))", task.name) and "decode" not in task.name:
            continue  # the same as another once it is small
        for name, contender in task.make().items():
            contender.call()
            seen.add(name)
            if contender.error is not None:
                # Three roundings to bfloat16 of numbers up to 4, and of sums of such.
                assert contender.error() < 2.0**-4, (task.name, name)
    assert {"slipstick", "SDPA flash", "FlexAttention"} <= seen
    assert len(set(names)) == len(names)


@pytest.fixture
def projection_bench(bench, monkeypatch):
    cases = sys.modules["cuda_projection"]
    monkeypatch.setattr(cases, "DEVICE", "cpu")
    return cases


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state")
def test_every_case_of_projection_runs(projection_bench):
    """With few rows each: an error is of rounding, where another map would be off by about 1."""
    limits = {"float32": 2.0**-14, "float64": 2.0**-43, "float16": 2.0**-7, "bfloat16": 2.0**-4}
    seen = set()
    for task in projection_bench.tasks(1 << 20):
        (dtype,) = [word for word in task.name.split() if word in limits] or ["float64"]
        # A sketch does not give singular values to rounding.
        limit = 2.0**-6 if task.name.startswith("randomized_svd") else limits[dtype]
        for name, contender in task.make().items():
            seen.add(name)
            if contender.error is None:
                contender.call()
            elif name not in ("torch, niter 2", "torch TF32, stored"):  # less is asked of them
                assert contender.error() < limit, (task.name, name)
        assert task.unit in sys.modules["cuda_clock"].OF_POPULATION_COUNTS
    assert {"slipstick", "slipstick, fast", "torch, stored", "torch, drawn"} <= seen


def test_sizes_are_divided(projection_bench):
    whole, eighth = ([x.name for x in projection_bench.tasks(divide)] for divide in (1, 8))
    assert len(set(whole)) == len(whole)
    assert "rademacher float32 1048576x10000 to 256" in whole
    assert "rademacher float32 131072x10000 to 256" in eighth
    refused = run("cuda_projection.py", "--list", "--divide", "0")
    assert refused.returncode == 2
    assert refused.stderr.endswith("--divide must be at least 1, got 0\n")


def test_population_counts_without_a_driver(bench, monkeypatch):
    """The rate of 132 multiprocessors at 1980 MHz; not a number where no driver says a clock."""
    clock, _ = bench
    card = SimpleNamespace(multi_processor_count=132)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    monkeypatch.setattr(clock, "_peaks", {})
    for said, rate in (("1980", 16 * 132 * 1.98), ("unknown", math.nan)):
        monkeypatch.setattr(clock, "_of_driver", lambda field, said=said: said)
        assert clock._population_counts() == pytest.approx(rate, nan_ok=True)


def test_shares_of_the_peaks(bench, monkeypatch):
    clock, _ = bench
    from contest import Contender, Task

    seconds = {"own": [4.0, 2.0, 3.0, 9.0, 1.0], "torch": [1.0, 1.5, 1.5, 1.5, 5.0]}
    left = {name: [0.01, *values] for name, values in seconds.items()}
    monkeypatch.setattr(clock, "_flushed", lambda: None)
    monkeypatch.setattr(clock, "_seconds", lambda call, flushed: left[call()].pop(0))
    monkeypatch.setattr(clock, "_peaks", {"copy": 100.0, "FFMA": 200.0})
    contenders = {
        "own": Contender(lambda: "own", peer=False),
        "torch": Contender(lambda: "torch", scale=2.0, error=lambda: 0.125),
    }
    result = clock.time_task(Task("products", 30.0, "MAC", lambda: contenders), 5)
    assert result.seconds == {"own": 3.0, "torch": 3.0}
    assert result.share_of_best_peer == 1.0
    assert result.share_of_peak == {"own": 0.1, "torch": 0.1}  # 60 operations in 3 s
    assert result.errors == {"torch": 0.125}


def run(program, *arguments):
    command = [sys.executable, str(FOLDER / program), *arguments]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("program", ["cuda_mitchell.py", "cuda_attention.py", "cuda_projection.py"])
def test_without_a_device_one_sentence(program):
    result = run(program)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.strip() in (
        "this benchmark needs a build of slipstick with CUDA, got one without",
        "this benchmark needs a CUDA device that torch can use, found none",
    )


def test_cases_are_named_without_a_device():
    names = run("cuda_attention.py", "--list").stdout.splitlines()
    assert "forward log n d128 N32768 causal" in names
    names = run("cuda_projection.py", "--list").stdout.splitlines()
    assert "hadamard float32 8192x32768" in names
    names = run("cuda_mitchell.py", "--list").stdout.splitlines()
    assert "matmul float32 8192 x 8192 x 8192" in names
    assert "multiply float32 2^26, mitchell" in names
