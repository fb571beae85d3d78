"""The thread pool: settings, many callers, fork, and who else is told of it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import threadpoolctl

import slipstick
from slipstick import mitchell

RNG = np.random.default_rng(0)
BIG = RNG.standard_normal(500_000).astype(np.float32)  # 16 chunks
LEFT = RNG.standard_normal((200, 300)).astype(np.float32)
RIGHT = RNG.standard_normal((300, 400)).astype(np.float32)


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    full = {k: v for k, v in os.environ.items() if not k.endswith("NUM_THREADS")} | environment
    return subprocess.run(
        [sys.executable, "-c", code], env=full, capture_output=True, text=True, timeout=120
    )


def test_setting_and_getting():
    before = slipstick.get_num_threads()
    try:
        slipstick.set_num_threads(3)
        assert slipstick.get_num_threads() == 3
    finally:
        slipstick.set_num_threads(before)


@pytest.mark.parametrize(
    ("count", "error", "got"),
    [
        (0, ValueError, "0"),
        (-1, ValueError, "-1"),
        (1025, ValueError, "1025"),
        (2**70, ValueError, str(2**70)),
        (2.0, TypeError, "float"),
        (True, TypeError, "bool"),
    ],
)
def test_refused_counts(count, error, got):
    before = slipstick.get_num_threads()
    with pytest.raises(error, match=rf"^set_num_threads: `count` must be .*, got {got}$"):
        slipstick.set_num_threads(count)
    assert slipstick.get_num_threads() == before


SHOW = "import slipstick; print(slipstick.get_num_threads())"


def test_the_environment_sets_the_default():
    assert run_python(SHOW, SLIPSTICK_NUM_THREADS="5").stdout == "5\n"
    assert run_python(SHOW, SLIPSTICK_NUM_THREADS="5", OMP_NUM_THREADS="3").stdout == "5\n"
    assert run_python(SHOW, OMP_NUM_THREADS="3").stdout == "3\n"
    assert run_python(SHOW, OMP_NUM_THREADS="3,2").stdout == "3\n"
    affinity = f"{len(os.sched_getaffinity(0))}\n"
    assert run_python(SHOW).stdout == affinity
    assert run_python(SHOW, OMP_NUM_THREADS="many").stdout == affinity


@pytest.mark.parametrize("value", ["0", "many", "-2", "5000", "2,3"])
def test_a_bad_environment_is_refused(value):
    variable = "slipstick: the environment variable SLIPSTICK_NUM_THREADS"
    message = f"{variable} must be a number from 1 to 1024, got '{value}'"
    assert message in run_python(SHOW, SLIPSTICK_NUM_THREADS=value).stderr


def test_threadpoolctl_sees_and_limits_the_pool():
    pools = [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "slipstick"]
    assert len(pools) == 1
    assert pools[0]["num_threads"] == slipstick.get_num_threads()
    assert pools[0]["version"] == slipstick.__version__
    with threadpoolctl.threadpool_limits(1, user_api="slipstick"):
        assert slipstick.get_num_threads() == 1
    assert slipstick.get_num_threads() == pools[0]["num_threads"]


def test_many_python_threads_at_once(threads):
    product = mitchell.multiply(BIG, BIG)
    matrix = mitchell.matmul(LEFT, RIGHT)
    wrong: list[int] = []
    start = threading.Barrier(6)

    def work(number: int) -> None:
        start.wait()
        for _ in range(20):
            same = np.array_equal(mitchell.multiply(BIG, BIG), product)
            if not same or not np.array_equal(mitchell.matmul(LEFT, RIGHT), matrix):
                wrong.append(number)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []


FORK = """
import os, sys, warnings
import numpy as np, slipstick
warnings.simplefilter("ignore")  # newer Pythons warn that a process with threads forks
slipstick.set_num_threads(4)
a = np.linspace(1, 2, 500_000, dtype=np.float32)
before = slipstick.mitchell.multiply(a, a)
children = []
for _ in range(4):
    child = os.fork()
    if child == 0:
        same = np.array_equal(slipstick.mitchell.multiply(a, a), before)
        grandchild = os.fork()
        if grandchild == 0:
            os._exit(0 if np.array_equal(slipstick.mitchell.multiply(a, a), before) else 1)
        os._exit(0 if same and os.waitpid(grandchild, 0)[1] == 0 else 1)
    children.append(child)
assert np.array_equal(slipstick.mitchell.multiply(a, a), before)
assert all(os.waitpid(child, 0)[1] == 0 for child in children)
print("done")
"""


def test_a_forked_child_has_a_pool_of_its_own():
    result = run_python(FORK)
    assert result.stdout == "done\n", result.stderr


FORK_WHILE_BUSY = """
import os, threading, warnings
import numpy as np, slipstick
warnings.simplefilter("ignore")
slipstick.set_num_threads(4)
a = np.linspace(1, 2, 500_000, dtype=np.float32)
before = slipstick.mitchell.multiply(a, a)
stop = threading.Event()
def busy():
    while not stop.is_set():
        slipstick.mitchell.multiply(a, a)
threads = [threading.Thread(target=busy) for _ in range(2)]
[t.start() for t in threads]
status = []
for _ in range(20):
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(slipstick.mitchell.multiply(a, a), before) else 1)
    status.append(os.waitpid(child, 0)[1])
stop.set()
[t.join() for t in threads]
print(status == [0] * 20)
"""


def test_a_child_forked_in_the_middle_of_a_call():
    result = run_python(FORK_WHILE_BUSY)
    assert result.stdout == "True\n", result.stderr


def test_an_error_leaves_the_pool_usable(threads):
    class Refusing:
        def __dlpack__(self, **options):
            raise BufferError("refused")

    expected = mitchell.multiply(BIG, BIG)
    for _ in range(3):
        with pytest.raises(ValueError, match="refused"):
            mitchell.multiply(BIG, Refusing())
        np.testing.assert_array_equal(mitchell.multiply(BIG, BIG), expected)


FLUSHED = """
import numpy as np, torch, slipstick
a = np.full((64, 2), 2.0**-63, np.float32)
b = np.float32([[2.0**-63], [-1.5 * 2.0**-63]])  # the products are normal, their sum is not
torch.set_flush_denormal(True)
result = slipstick.mitchell.matmul(a, b)
torch.set_flush_denormal(False)
print(np.all(result == np.ldexp(-1.0, -127)))
"""


def test_the_callers_float_environment_does_not_matter():
    pytest.importorskip("torch")
    result = run_python(FLUSHED)
    assert result.stdout == "True\n", result.stderr


@pytest.mark.skipif(
    getattr(sys, "_is_gil_enabled", lambda: True)() is not False,
    reason="this Python has a global interpreter lock",
)
def test_import_keeps_the_gil_disabled():
    assert sys._is_gil_enabled() is False
