"""The program `slipstick`."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

import slipstick
from slipstick import _cpu, bench, cli


def test_info_names_version_compiler_levels_threads_and_cuda(capsys):
    assert cli.main(["info"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"slipstick {slipstick.__version__}\n")
    for word in (_cpu.compiler, *_cpu.levels, "level active", "threads", "cuda"):
        assert word in text
    assert f"level active      {slipstick.get_isa()}" in text


class TwoDevices:
    """A CUDA module on a machine with two GPUs."""

    runtime_version = 13000

    def device_count(self):
        return 2

    def device_name(self, device):
        return f"NVIDIA H{device + 1}00"

    def device_memory(self, device):
        return (device + 1) * 80 << 30

    def compute_capability(self, device):
        return 9, device

    def attention_kernels(self, device):
        return ["forward: one", f"backward: {device}"]


@pytest.mark.parametrize(
    ("module", "state"),
    [
        (
            TwoDevices(),
            "runtime 13.0, 0: NVIDIA H100 (80 GiB, compute capability 9.0), "
            "1: NVIDIA H200 (160 GiB, compute capability 9.1)",
        ),
        (None, "not in this build"),
    ],
)
def test_info_lists_the_devices(module, state, monkeypatch):
    monkeypatch.setattr(cli, "cuda_kernels", lambda: module)
    assert re.search(rf"^  cuda +{re.escape(state)}$", cli.info(), re.M)
    found = re.findall(
        r"^  attention on cuda:(\d) +forward: one; backward: (\d)$", cli.info(), re.M
    )
    assert found == ([] if module is None else [("0", "0"), ("1", "1")])


def test_the_module_is_the_same_program():
    result = subprocess.run(
        [sys.executable, "-m", "slipstick", "info"], capture_output=True, text=True, check=True
    )
    assert result.stdout == cli.info() + "\n"


def test_a_command_is_required(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([])
    assert stop.value.code == 2
    assert "required" in capsys.readouterr().err


def test_bench_prints_and_writes_its_figures(tmp_path, capsys, monkeypatch):
    def quick():
        yield bench.Case(
            "sum", 1e3, "add", {"slipstick": lambda: 1, "peer": lambda: sum(range(99))}
        )

    monkeypatch.setitem(bench._FAMILIES, "mitchell", quick)
    path = tmp_path / "figures.json"
    assert cli.main(["bench", "mitchell", "--json", str(path)]) == 0
    assert "peer" in capsys.readouterr().out
    figures = json.loads(path.read_text())
    assert set(figures["timings"][0]["seconds"]) == {"slipstick", "peer"}
    assert "cpu" in figures["machine"]


def test_measure_pauses_before_each_turn(monkeypatch):
    events = []
    monkeypatch.setattr(bench.time, "sleep", lambda seconds: events.append(seconds))
    calls = {name: lambda name=name: events.append(name) for name in ("own", "peer")}
    timing = bench.measure(bench.Case("c", 1, "call", calls), rounds=2, seconds=0, pause=0.5)
    warm_up = ["own", "own", "peer", "peer"]
    assert events == warm_up + 2 * [0.5, "own", 0.5, "peer"]
    assert set(timing.seconds) == {"own", "peer"}


@pytest.mark.parametrize("family", ["mitchell", "attention", "projection"])
def test_every_case_of_the_benchmark_runs(family):
    """Each contender once: what the program times exists and accepts what it is given."""
    for case in bench._FAMILIES[family]():
        for call in case.contenders.values():
            call()


def test_cuda_module_imports_without_a_driver():
    cuda = pytest.importorskip("slipstick._cuda", reason="built without a CUDA compiler")
    count = cuda.device_count()
    assert count >= 0
    with pytest.raises(
        ValueError, match=rf"^device_name: `device` must be less than .*, {count}, got"
    ):
        cuda.device_name(count)
