"""The emulator of CUDA devices: it runs kernels, and notices what is wrong with them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest

THREADS = 64
CAUGHT_BY_SANITIZERS = ("overrun", "overrun_of_shared_memory", "misaligned")


class Trial:
    """Kernels of `cuda_emulator/trials.cu`, over `count` int32 of a device."""

    def __init__(self, emulator, count=3 * THREADS, device=0):
        self.emulator = emulator
        self.device = device
        self.values = np.arange(count, dtype=np.int32)
        self.source = emulator.array(self.values, device)
        self.to = emulator.array(np.zeros(count, np.int32), device)

    def run(self, name, *, block=(THREADS, 1, 1), grid=None, shared_bytes=4 * THREADS, **places):
        count = self.values.size
        self.emulator.control.run_trial(
            name=name,
            device=places.get("device", self.device),
            stream=places.get("stream", 0),
            source=places.get("source", self.source.view.ctypes.data),
            to=places.get("to", self.to.view.ctypes.data),
            count=count,
            grid=grid or (max(count // THREADS, 1), 1, 1),
            block=block,
            shared_bytes=shared_bytes,
        )
        return self.to.numpy()


@pytest.fixture
def trial(emulated_cuda):
    return Trial(emulated_cuda)


def test_threads_share_memory_and_wait_for_each_other(emulated_cuda):
    for device in range(2):
        trial = Trial(emulated_cuda, device=device)
        with emulated_cuda.current_device(device):
            sums = trial.run("block_sums").reshape(-1, THREADS)
        expected = trial.values.reshape(-1, THREADS).sum(1)
        assert (sums == expected[:, None]).all()


def test_the_order_of_threads_shows_a_race(emulated_cuda, trial):
    reversed_blocks = trial.values.reshape(-1, THREADS)[:, ::-1].ravel()
    seen = set()
    for seed in range(3):
        emulated_cuda.control.set_seed(seed)
        result = trial.run("race")
        assert (result != reversed_blocks).any()
        assert set(result[result != reversed_blocks]) == {-1}  # not yet written
        seen.add(result.tobytes())
    assert len(seen) == 3
    emulated_cuda.control.set_seed(0)
    assert trial.run("race").tobytes() in seen


def test_uninitialised_shared_memory_is_nothing_likely(trial):
    assert set(trial.run("uninitialised_shared_memory", grid=(1, 1, 1))[:THREADS]) == {-1}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("some_threads_end", r"waits at trials\.cu:\d+, but 32 threads of the block have ended"),
        ("two_barriers", r"waits at trials\.cu:\d+, but another thread of the block at trials\.cu"),
        ("overrun_of_shared_memory", r"wrote beyond its 256 bytes of shared memory"),
        ("overrun", r"touched device 0's memory, 0 bytes behind an allocation of 768 bytes"),
        ("endless_recursion", r"touched memory that is nobody's"),
        ("host_address", r"touched memory that is nobody's"),
        ("misaligned", r"accessed memory that is not aligned as its type has to be"),
        ("some_lanes_meet", r"waits at trials\.cu:\d+, but 7 threads of the block have ended"),
        ("forgotten_copy", r"ends with copies that nobody has waited for"),
        ("misaligned_row", r"16 bytes of shared memory at an address that is no multiple of 16"),
        ("throws", r"^from a kernel$"),
    ],
)
def test_what_kernels_must_not_do(emulated_cuda, trial, name, message):
    if name in CAUGHT_BY_SANITIZERS and emulated_cuda.control.has_address_sanitizer:
        pytest.skip("a sanitizer would end the process")
    fault = IndexError if name == "throws" else RuntimeError
    places = {"source": 2 * 4096} if name == "host_address" else {}
    with pytest.raises(fault, match=message):
        trial.run(name, **places)
    assert (trial.run("copy") == trial.values).all()  # and goes on


def test_lanes_of_a_warp_exchange_what_they_hold(trial):
    sums = trial.run("warp_sums", grid=(1, 1, 1))[:THREADS]
    expected = trial.values[:THREADS].reshape(-1, 32).sum(1)
    assert (sums == expected.repeat(32)).all()


def test_matrix_fragments_and_their_product(emulated_cuda):
    rng = np.random.default_rng(0)
    operands = rng.integers(-9, 10, 16 * 16 + 16 * 8).astype(ml_dtypes.bfloat16)
    trial = Trial(emulated_cuda, operands.size // 2)
    trial.source = emulated_cuda.array(operands.view(np.int32))
    result = trial.run("tensor_product", block=(32, 1, 1), grid=(1, 1, 1), shared_bytes=1024)
    a = operands[:256].reshape(16, 16).astype(np.float32)
    b = operands[256:].reshape(16, 8).astype(np.float32)
    assert (result[:128].view(np.float32).reshape(16, 8) == a @ b).all()


def test_copies_arrive_when_they_are_waited_for(trial):
    results = trial.run("copies", block=(32, 1, 1), grid=(1, 1, 1), shared_bytes=512)[:64]
    assert (results[::2] == -1).all()  # not yet written
    assert (results[1::2] == trial.values[:128:4]).all()


class HopperTrial(Trial):
    """`cuda_emulator/hopper_trials.cu`: left right^T for 64 and 128 rows of 320 bfloat16."""

    def __init__(self, emulator):
        rows = np.random.default_rng(0).integers(-4, 5, (64 + 128, 320)).astype(ml_dtypes.bfloat16)
        super().__init__(emulator, 64 * 128)
        self.source = emulator.array(rows.view(np.int32))
        self.expected = rows[:64].astype(np.float32) @ rows[64:].astype(np.float32).T

    def runs(self, name, seeds=8):
        """Whether the result is right, for some orders of what runs at the same time."""
        for seed in range(seeds):
            self.emulator.control.set_seed(seed)
            result = self.run(name).view(np.float32).reshape(64, 128)
            yield np.array_equal(result, self.expected)


def test_a_product_of_a_warpgroup(emulated_cuda):
    assert all(HopperTrial(emulated_cuda).runs("product"))


@pytest.mark.parametrize("name", ["reads_before_arrival", "frees_too_early", "brings_too_early"])
def test_what_is_done_at_the_wrong_time_is_noticed(emulated_cuda, name):
    """In some orders: what comes too late or too early in others comes at once."""
    with contextlib.suppress(RuntimeError):  # a fault
        assert not all(HopperTrial(emulated_cuda).runs(name))


def test_sums_of_products_that_run_are_nans(emulated_cuda):
    trial = HopperTrial(emulated_cuda)
    assert not any(trial.runs("uses_sums_too_early", seeds=1))
    assert np.isnan(trial.to.numpy().view(np.float32)).all()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("writes_running_sums", "wrote to sums of a product that was running"),
        ("leaves_products_running", "ended before what it had started"),
        ("does_not_begin", "multiplies registers without begin_products"),
        ("expects_other_bytes", r"waits at hopper_trials\.cu:\d+, but"),
        ("does_not_swizzle", "multiplies a matrix that is not swizzled by 128 bytes"),
        ("misplaces_boxes", "has a box brought to an address that is no multiple of 1024"),
        ("takes_too_many", "asks for 264 registers"),
        ("arrives_twice", r"waits at hopper_trials\.cu:\d+, but"),
    ],
)
def test_what_warpgroups_must_not_do(emulated_cuda, name, message):
    with pytest.raises(RuntimeError, match=message):
        any(HopperTrial(emulated_cuda).runs(name))


def test_some_warps_meet_others_that_do_not_wait(emulated_cuda):
    trial = Trial(emulated_cuda)
    for seed in range(4):
        emulated_cuda.control.set_seed(seed)
        assert (trial.run("relay")[:64] == 2 * trial.values[:64]).all()


def test_writes_behind_an_allocation_that_ends_within_a_page(emulated_cuda):
    if emulated_cuda.control.has_address_sanitizer:
        pytest.skip("a sanitizer would end the process")
    with pytest.raises(RuntimeError, match=r"wrote around an allocation of 200 bytes"):
        Trial(emulated_cuda, 50).run("overrun")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block": (1025, 1, 1)}, "invalid configuration"),
        ({"block": (32, 2, 17)}, "invalid configuration"),
        ({"block": (1, 1, 65)}, "invalid configuration"),
        ({"block": (0, 1, 1)}, "invalid configuration"),
        ({"grid": (0, 1, 1)}, "invalid configuration"),
        ({"grid": (1, 65536, 1)}, "invalid configuration"),
        ({"grid": (1, 1, 65536)}, "invalid configuration"),
        ({"stream": 12345}, "invalid resource handle"),
        ({"shared_bytes": 227 * 1024 + 1}, "invalid argument"),
    ],
    ids=str,
)
def test_launches_beyond_the_limits(emulated_cuda, trial, options, message):
    emulated_cuda.control.take_launches()
    with pytest.raises(RuntimeError, match=f"trial: CUDA reports: {message}"):
        trial.run("copy", **options)
    assert emulated_cuda.control.take_launches() == []


def test_devices_have_different_amounts_of_shared_memory(emulated_cuda):
    for device, kilobytes in ((0, 227), (1, 99)):
        trial = Trial(emulated_cuda, device=device)
        with emulated_cuda.current_device(device):
            trial.run("copy", shared_bytes=kilobytes * 1024)
            with pytest.raises(RuntimeError, match="invalid argument"):
                trial.run("copy", shared_bytes=kilobytes * 1024 + 1)


def test_addresses_that_the_device_does_not_have(emulated_cuda, trial):
    elsewhere = emulated_cuda.array(trial.values, device=1)
    with pytest.raises(RuntimeError, match="argument 0 has, at byte 0, an address of device 1's m"):
        trial.run("copy", source=elsewhere.view.ctypes.data)
    with pytest.raises(RuntimeError, match="argument 0 has, at byte 0, an address of the host's"):
        trial.run("copy", source=trial.values.ctypes.data)


def test_the_current_device_is_the_launch_s(emulated_cuda):
    trial = Trial(emulated_cuda, device=1)
    with pytest.raises(RuntimeError, match="launched while device 0 was current, not its own, 1"):
        trial.run("copy")
    with emulated_cuda.stream(device=1) as stream:
        with pytest.raises(RuntimeError, match="invalid resource handle"):
            Trial(emulated_cuda).run("copy", stream=stream)
        with emulated_cuda.current_device(1):
            assert (trial.run("copy", stream=stream) == trial.values).all()


def test_a_captured_stream_runs_nothing_before_the_replay(emulated_cuda, trial):
    with emulated_cuda.capture() as graph:
        trial.run("copy", stream=emulated_cuda.streams[0])
    assert (trial.to.numpy() == 0).all()
    for values in (trial.values, trial.values[::-1]):
        emulated_cuda.control.copy(0, trial.source.view, values)
        graph.replay()
        assert (trial.to.numpy() == values).all()


def test_a_dry_run_checks_launches_of_any_size(emulated_cuda, trial):
    emulated_cuda.control.take_launches()
    most = (2**31 - 1, 1, 1)
    with emulated_cuda.dry_run():
        trial.to = emulated_cuda.empty((1 << 34,), "int32")
        address = trial.to.view.ctypes.data
        run = emulated_cuda.control.run_trial
        run("copy", 0, 0, address, address, 0, most, (64, 1, 1), 0)
        with pytest.raises(RuntimeError, match="invalid configuration"):
            run("copy", 0, 0, address, address, 0, (2**31, 1, 1), (64, 1, 1), 0)
    assert [launch["grid"] for launch in emulated_cuda.control.take_launches()] == [most]


def test_memory_that_is_out_of_reach(emulated_cuda):
    """The host reads a device's memory: there is no way to go on."""
    program = (
        "from cuda_emulation import Emulator; from pathlib import Path; import numpy as np\n"
        f"Emulator(Path({str(emulated_cuda.folder)!r})).array(np.ones(3)).view[0]"
    )
    paths = os.environ | {"PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=paths
    )
    assert done.returncode != 0
    assert "the host touched device 0's memory" in done.stderr


def test_memory_is_given_back(emulated_cuda):
    before = [emulated_cuda.control.used_bytes(device) for device in range(2)]
    array = emulated_cuda.array(np.ones(1000, np.float32), 1)
    part = array[::2]
    del array
    assert emulated_cuda.control.used_bytes(1) == before[1] + 4000
    del part
    assert [emulated_cuda.control.used_bytes(device) for device in range(2)] == before
    with pytest.raises(RuntimeError, match="no memory"):
        emulated_cuda.empty(((1 << 30) + 1,), "int8")
