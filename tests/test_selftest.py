"""`slipstick selftest`: what it runs, and that it finds a kernel that is wrong."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import slipstick
from projection_cases import MILLION_ENTRIES, MILLION_HASHED_ENTRIES
from slipstick import cli, lsh, mitchell, selftest
from slipstick.selftest import _check, _devices, _mitchell_cuda, _projection

QUICK = ("divide, reciprocal", "attention of single queries", "Hamming distances")


@pytest.fixture
def quick(monkeypatch):
    """Three checks that take a moment each."""
    checks = [check for check in selftest._ON_CPU if check.name in QUICK]
    assert len(checks) == len(QUICK)
    monkeypatch.setattr(selftest, "_ON_CPU", checks)


def rows_of(text):
    """The table's rows as (family, check, cases, error, result), by the columns of its titles."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("family"))
    starts = [m.start() for m in re.finditer(r"(?<= )\S|^\S", lines[start])]
    assert len({len(line) for line in lines[start : start + 1 + len(QUICK)]}) == 1
    assert len(starts) == 8  # "error / bound" is three words
    for line in itertools.takewhile(bool, lines[start + 1 :]):
        yield [part.strip() for part in re.split(r"\s{2,}", line)]


def test_a_table_and_a_file(quick, capsys, tmp_path):
    path = tmp_path / "table.json"
    assert cli.main(["selftest", "--json", str(path)]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"slipstick {slipstick.__version__} on cpu: levels ")
    assert "\nall checks passed, " in text
    rows = list(rows_of(text))
    assert [row[1] for row in rows] == list(QUICK)
    assert [row[3] == "bits equal" for row in rows] == [True, False, True]
    assert all(row[4] == "ok" for row in rows)
    figures = json.loads(path.read_text())
    assert figures["device"].startswith("cpu: ")
    assert "slipstick" in figures["machine"]
    for row, check in zip(rows, figures["checks"], strict=True):
        assert row[:3] == [check["family"], check["check"], str(check["cases"])]
        assert check["ok"]
        assert check["failures"] == []
        assert check["worst"] is None or 0 <= check["worst"] <= 1


def test_every_family_is_checked():
    assert {check.family for check in selftest._ON_CPU} == {
        "mitchell",
        "attention",
        "projection",
        "lsh",
    }


def test_the_whole_selftest():
    assert selftest.run() == 0


@pytest.mark.parametrize("method", mitchell.methods())
def test_no_method_is_left_out(method):
    """The first product of each method is compared: a name that the reference lacks would raise."""
    dtype = np.dtype(np.uint8)
    assert method in [name for name, _ in selftest._mitchell.methods_of(dtype)]


def test_known_answers_are_those_of_the_tests():
    published = {law["kind"]: digest for law, digest in MILLION_ENTRIES}
    assert published | dict(MILLION_HASHED_ENTRIES) == _projection.DIGESTS


# --- Kernels that are wrong -----------------------------------------------------------------------


def wrong(function, change):
    """A kernel whose result is changed."""

    def call(*arguments, **options):
        result = function(*arguments, **options)
        first = result[0] if isinstance(result, tuple) else result
        change(first)
        return result

    return call


def next_number(array):
    flat = array.reshape(-1)
    flat[-1:] = flat[-1:] + 1 if array.dtype.kind in "iu" else flat[-1:] * array.dtype.type(1.5)


@pytest.mark.parametrize(
    ("module", "name", "check", "message"),
    [
        (mitchell, "divide", "divide, reciprocal", "numbers are wrong, first at"),
        (slipstick, "attention", "attention of single queries", "numbers are wrong, first at"),
        (lsh, "hamming_distance", "Hamming distances", "1 of 1500 numbers are wrong, first at (4"),
    ],
)
def test_a_wrong_kernel_fails(quick, monkeypatch, capsys, module, name, check, message):
    monkeypatch.setattr(module, name, wrong(getattr(module, name), next_number))
    assert cli.main(["selftest"]) == 1
    text = capsys.readouterr().out
    failed = [row[1] for row in rows_of(text) if row[4] == "FAILED"]
    assert failed == [check]
    assert message in text
    assert ", level " in text
    assert "1 of 3 checks failed" in text


def test_a_nan_fails_and_the_file_has_no_infinity(quick, monkeypatch, tmp_path):
    nan = wrong(slipstick.attention, lambda out: out.fill(np.nan))
    monkeypatch.setattr(slipstick, "attention", nan)
    path = tmp_path / "table.json"
    assert selftest.run("cpu", path) == 1
    assert "Infinity" not in path.read_text()
    assert [check["ok"] for check in json.loads(path.read_text())["checks"]] == [True, False, True]


def test_a_kernel_that_depends_on_threads_fails(quick, monkeypatch, capsys):
    """By less than the bound."""

    def change(out):
        if slipstick.get_num_threads() == 7:
            out[...] = np.nextafter(out, out.dtype.type(0))

    monkeypatch.setattr(slipstick, "attention", wrong(slipstick.attention, change))
    assert selftest.run() == 1
    text = capsys.readouterr().out
    assert re.search(r"float32, level \w+, 7 threads: not the bits of level \w+, 1 thread: ", text)


def test_a_kernel_that_raises_fails_and_the_others_run(quick, monkeypatch, capsys):
    def broken(*arguments, **options):
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(mitchell, "reciprocal", broken)
    level, threads = slipstick.get_isa(), slipstick.get_num_threads()
    assert selftest.run() == 1
    text = capsys.readouterr().out
    assert "reciprocal, float32: raised RuntimeError: no such kernel" in text
    assert [row[4] for row in rows_of(text)] == ["FAILED", "ok", "ok"]
    assert (slipstick.get_isa(), slipstick.get_num_threads()) == (level, threads)


@pytest.mark.parametrize(
    ("got", "expected", "bound", "worst"),
    [
        ([1.5, 2.0], [1.0, 2.0], 1.0, 0.5),
        ([np.nan, np.inf], [np.nan, np.inf], 1.0, 0.0),
        ([np.nan], [1.0], 1.0, np.inf),
        ([1.0], [np.nan], 1.0, np.inf),
        ([np.inf], [-np.inf], 1.0, np.inf),
        ([1.0], [1.0], 0.0, 0.0),
        ([1.0], [1.5], 0.0, np.inf),
    ],
)
def test_errors_in_units_of_the_bound(got, expected, bound, worst):
    ratio = _check.errors_over_bound(np.array(got), np.array(expected), bound)
    assert ratio.max() == worst


def test_bits_tell_zeros_apart_and_no_nans():
    a = np.float32([0, -0.0, np.nan, -np.nan, 1])
    b = np.float32([0, 0.0, -np.nan, np.nan, np.nan])
    assert _check.bits_differ(a, b).tolist() == [False, True, False, False, True]


# --- Devices --------------------------------------------------------------------------------------


def refusal(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main(["selftest", *arguments])
    assert stop.value.code == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("device", "devices", "message"),
    [
        ("gpu", None, "--device must be cpu, cuda or cuda:NUMBER, got 'gpu'"),
        ("cuda:", [], "--device must be cpu, cuda or cuda:NUMBER, got 'cuda:'"),
        ("cuda:-1", [], "--device must be cpu, cuda or cuda:NUMBER, got 'cuda:-1'"),
        ("cpu:0", [], "--device must be cpu, cuda or cuda:NUMBER, got 'cpu:0'"),
        ("cuda", None, "--device cuda needs a build with CUDA, got one without"),
        ("cuda", [], "--device cuda needs a CUDA device and its driver, found none"),
        (
            "cuda:2",
            ["0: one", "1: two"],
            "--device must be less than cuda:2, the number of devices, got cuda:2",
        ),
        (
            "cuda:1",
            ["0: one", "1: two"],
            "--device cuda:1 needs torch with CUDA or cupy to make arrays there, found neither",
        ),
    ],
)
def test_devices_that_are_not_there(monkeypatch, capsys, device, devices, message):
    monkeypatch.setattr(_devices, "cuda_devices", lambda: devices)
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert refusal(capsys, "--device", device) == f"slipstick selftest: error: {message}"


def test_a_device_is_compared_with_levels_that_have_its_bits(monkeypatch, capsys):
    monkeypatch.setattr(_devices, "cuda_devices", lambda: ["0: one"])
    monkeypatch.setattr(slipstick, "get_isa", lambda: "v2")
    message = "--device cuda compares with the CPU's bits at level v3 or above, got level v2"
    assert refusal(capsys, "--device", "cuda") == f"slipstick selftest: error: {message}"


def test_a_file_that_cannot_be_written(capsys, tmp_path):
    path = tmp_path / "no" / "table.json"
    line = refusal(capsys, "--json", str(path))
    assert f"--json must be a file to write, got '{path}': No such file" in line


class OneTorchDevice:
    """torch on a machine with a CUDA device, whose memory is NumPy's."""

    __version__ = "2.13"
    cuda = SimpleNamespace(is_available=lambda: True)
    bfloat16 = "bfloat16"

    def __init__(self):
        self.sent = 0

    def from_numpy(self, array):
        def to(device):
            assert device == "cuda:1"
            self.sent += 1
            return DeviceArray(array)

        return SimpleNamespace(to=to)


class DeviceArray(np.ndarray):
    """NumPy's array with the words of a tensor that the checks use."""

    def __new__(cls, array):
        return array.view(cls)

    def view(self, dtype=None, *rest):
        if dtype == "bfloat16":  # torch's name for it
            dtype = selftest.BFLOAT16[0]
        return super().view(dtype, *rest)

    def cpu(self):
        return self

    def numpy(self):
        return np.asarray(self)


@pytest.fixture
def torch_device(monkeypatch):
    """A second CUDA device that computes what the CPU does."""
    torch = OneTorchDevice()
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setattr(_devices, "cuda_devices", lambda: ["0: one", "1: two"])
    few = [_check.Check("mitchell", "few", lambda: itertools.islice(_mitchell_cuda._matmul(), 6))]
    monkeypatch.setattr(selftest, "_ON_CUDA", few)
    matmul = mitchell.matmul

    def of_device_arrays(a, b):
        assert type(a) is type(b)
        return matmul(a, b).view(type(a))

    monkeypatch.setattr(mitchell, "matmul", of_device_arrays)
    return torch


def test_a_device_is_compared_with_the_cpu(torch_device, capsys):
    assert cli.main(["selftest", "--device", "cuda:1"]) == 0
    text = capsys.readouterr().out
    assert "on cuda:1: 1: two; arrays of torch 2.13\n" in text
    assert torch_device.sent == 2 * 6
    assert re.search(r"^mitchell +few +6 +bits equal +ok", text, re.M)


def test_a_wrong_device_kernel_fails(torch_device, capsys, monkeypatch):
    function = mitchell.matmul

    def on_device_wrong(a, b):
        result = function(a, b)
        if isinstance(a, DeviceArray):
            next_number(result)
        return result

    monkeypatch.setattr(mitchell, "matmul", on_device_wrong)
    assert cli.main(["selftest", "--device", "cuda:1"]) == 1
    text = capsys.readouterr().out
    assert "float32, 257 x 600 x 131, on the device: 1 of 33667 numbers are wrong" in text
    assert "  and 3 more" in text


@pytest.mark.parametrize("check", selftest._ON_CUDA, ids=lambda check: check.name)
def test_what_is_checked_on_a_device(device, check):
    outcome = _check.perform(check, _devices._on_device(device.array, device.numpy))
    assert outcome.failures == []
    bounded = check in selftest._attention.CHECKS or "fast" in check.name
    assert (outcome.worst is None) == (not bounded)
    assert outcome.cases == len(list(check.cases()))


def test_numpy_is_enough():
    blocked = ["torch", "cupy", "ml_dtypes", "scipy", "pytest", "jax", "threadpoolctl", "tests"]
    program = f"""
import sys
for name in {blocked}:
    sys.modules[name] = None
from slipstick import cli, selftest
selftest._ON_CPU = [c for c in selftest._ON_CPU if c.name in {QUICK}]
raise SystemExit(cli.main(["selftest"]))
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "bfloat16 was not checked: NumPy knows it where ml_dtypes is installed" in run.stdout
