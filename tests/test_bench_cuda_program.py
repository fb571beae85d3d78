"""The C++ benchmark of CUDA: it compiles, and says what it needs where there is no device."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
WARNINGS = ["-Xcompiler=-Wall,-Wextra,-Werror", "-Werror=all-warnings", "--diag-suppress=445,186"]
# The kernels, two minutes of compiling, are left out: without a device nothing calls them.
LINK = ["-Xcompiler=-fno-pie,-no-pie", "-Xlinker", "--unresolved-symbols=ignore-all"]


pytest.importorskip("slipstick._cuda", reason="built without a CUDA compiler")


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc on this machine")
@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="there is a CUDA device")
def test_without_a_device_one_sentence(tmp_path):
    program = tmp_path / "slipstick_bench_cuda"
    source = ROOT / "bench" / "cpp" / "cuda_mitchell.cu"
    flags = ["-std=c++20", "--expt-relaxed-constexpr", "-arch=sm_90", f"-I{ROOT / 'cpp'}"]
    command = ["nvcc", *flags, *WARNINGS, *LINK, str(source), "-o", str(program)]
    compiled = subprocess.run(command, capture_output=True, text=True)
    assert compiled.returncode == 0, compiled.stderr
    result = subprocess.run([program], capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stdout == ""
    expected = "slipstick_bench_cuda needs a CUDA device and its driver, found none\n"
    assert result.stderr == expected
