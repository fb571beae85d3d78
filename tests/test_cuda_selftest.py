"""`slipstick selftest --device cuda`, on emulated devices and on the machine's."""

from __future__ import annotations

import numpy as np
import pytest

from slipstick import mitchell, selftest
from slipstick.selftest import _devices


@pytest.fixture
def place(device, monkeypatch):
    """Let selftest find the emulated devices."""
    if device.emulated:

        def arrays(text, index):
            return "the emulator", _devices._on_device(
                lambda array: device.array(array, index), device.numpy
            )

        names = [device.cuda.device_name(index) for index in range(device.count)]
        monkeypatch.setattr(_devices, "cuda_devices", lambda: names)
        monkeypatch.setattr(_devices, "_cuda_arrays", arrays)
    return "cuda:1" if device.count > 1 else "cuda"


def test_every_check_is_passed(place, capsys):
    assert selftest.run(place) == 0
    assert "all checks passed" in capsys.readouterr().out


def test_wrong_bits_are_found(place, monkeypatch, capsys):
    """A device that knows Mitchell's own method alone."""

    def multiply(a, b, **options):
        return right(a, b, **options if isinstance(a, np.ndarray) else {})

    right = mitchell.multiply
    monkeypatch.setattr(mitchell, "multiply", multiply)
    monkeypatch.setattr(selftest, "_ON_CUDA", selftest._ON_CUDA[:1])
    assert selftest.run(place) == 1
    assert "numbers are wrong, first at" in capsys.readouterr().out
