"""Random projection on CUDA devices: the CPU's matrices, and the CPU's bits.

On emulated devices (`cuda_emulation`), and on the machine's own where it has some.
"""

from __future__ import annotations

import numpy as np
import pytest

from projection_cases import DTYPES, EVERY_LAW
from slipstick import projection

# Starts that are no group's, and columns past 2**32.
PARTS = [
    (slice(3), slice(1)),
    (slice(5, 6), slice(7, 300)),
    (slice(126, 260), slice(2**32 - 3, 2**32 + 5)),
    (slice(4090, 4100), slice(4094, 4099)),
    (slice(2, 2), slice(5)),
]


def block(law, seed, rows, cols, **more):
    return projection.block(seed=seed, rows=rows, cols=cols, **law, **more)


@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
@pytest.mark.parametrize("law", EVERY_LAW, ids=lambda law: law["kind"])
def test_parts_of_the_matrix(device, law, dtype):
    for rows, cols in PARTS:
        for n_components in (8192, None):
            if n_components is None and law["kind"] in ("sjlt", "countsketch"):
                continue
            shape = (rows.stop - (rows.start or 0), cols.stop - (cols.start or 0))
            options = {"n_components": n_components}
            seed = 0x123456789ABCDEF
            expected = block(law, seed, rows, cols, **options, out=np.empty(shape, dtype))
            out = device.array(np.zeros((2 * shape[0], shape[1]), dtype))[::2].T
            same = block(law, seed, rows, cols, **options, out=out.T)
            np.testing.assert_array_equal(device.numpy(same), expected)
            np.testing.assert_array_equal(device.numpy(out.T), expected)
