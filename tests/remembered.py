"""What is computed once for all levels and thread counts, which come one after the other."""

from __future__ import annotations

import functools
import hashlib
import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

# More than the results of any one test.
KEPT_BYTES = 128 << 20


def remembered(function: Callable[..., Any]) -> Callable[..., Any]:
    """Keep the last results of a function of what can be pickled; their arrays cannot be written.

    Arguments count by value: a test makes them anew each time.
    """
    results: OrderedDict[bytes, Any] = OrderedDict()
    size = 0

    @functools.wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        nonlocal size
        key = hashlib.blake2b(pickle.dumps((arguments, options), protocol=5)).digest()
        if key not in results:
            results[key] = result = function(*arguments, **options)
            for array in arrays_of(result):
                array.flags.writeable = False
                size += array.nbytes
            while size > KEPT_BYTES:
                _, oldest = results.popitem(last=False)
                size -= sum(array.nbytes for array in arrays_of(oldest))
            return result
        return results[key]

    return call


def arrays_of(result: Any) -> Iterator[np.ndarray]:
    if isinstance(result, np.ndarray):
        yield result
    elif isinstance(result, tuple):
        for part in result:
            yield from arrays_of(part)
