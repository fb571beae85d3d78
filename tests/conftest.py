"""Fixtures: every instruction-set level and thread count of this machine, and several processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import threadpoolctl

import slipstick
from slipstick import _cpu

# NumPy multiplies small matrices here; its threads would wait for each other on busy cores.
threadpoolctl.threadpool_limits(1, user_api="blas")

# A failed assert in a shared module shows its values, as one in a test file does.
pytest.register_assert_rewrite("attention_oracle", "attention_backward_oracle")

LEVELS = _cpu.levels[: _cpu.levels.index(_cpu.best_isa) + 1]
SWEPT = ("isa", "threads", "device")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the levels, thread counts and devices of a case one after the other.

    They share its oracle.
    """
    places: dict[Any, int] = {}

    def place(item: pytest.Item) -> int:
        spec = getattr(item, "callspec", None)
        # The objects of the lists that the tests are parametrised with.
        own = {} if spec is None else {name: id(value) for name, value in spec.params.items()}
        case = frozenset((name, value) for name, value in own.items() if name not in SWEPT)
        return places.setdefault((item.nodeid.partition("[")[0], case), len(places))

    items.sort(key=place)


@pytest.fixture(scope="session")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Four processes that wait for what `slipstick.distributed` is to do in them."""
    from distributed_ranks import Ranks

    ranks = Ranks(4, tmp_path_factory.mktemp("ranks") / "store")
    yield ranks
    ranks.close()


@pytest.fixture(scope="session")
def cuda_emulator(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A `cuda_emulation.Emulator`, built from the sources.

    SLIPSTICK_CUDA_EMULATOR names a folder in which a build is kept.
    """
    from cuda_emulation import Emulator

    kept = os.environ.get("SLIPSTICK_CUDA_EMULATOR")
    return Emulator(Path(kept) if kept else tmp_path_factory.mktemp("cuda_emulator"))


@pytest.fixture
def emulated_cuda(cuda_emulator: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make slipstick's functions take the arrays of emulated devices."""
    cuda_emulator.register(monkeypatch)
    return cuda_emulator


@pytest.fixture(params=["emulated", pytest.param("gpu", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> Any:
    """Run the test on emulated CUDA devices, and on the machine's where torch finds some."""
    if request.param == "emulated":
        return request.getfixturevalue("emulated_cuda")
    torch = pytest.importorskip("torch", reason="torch is not installed")
    if not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device")
    from cuda_torch import TorchDevices

    return TorchDevices()


@pytest.fixture(params=LEVELS)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run the test at each level that the machine has."""
    before = slipstick.get_isa()
    slipstick.set_isa(request.param)
    yield request.param
    slipstick.set_isa(before)


@pytest.fixture(params=[1, 2, 7])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Run the test with so many threads, whatever the machine has."""
    before = slipstick.get_num_threads()
    slipstick.set_num_threads(request.param)
    yield request.param
    slipstick.set_num_threads(before)
