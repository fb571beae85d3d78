"""Convolutions with approximate products and ordinary sums."""

from __future__ import annotations

from operator import index
from typing import Any

from slipstick._arrays import framework_of
from slipstick.mitchell._methods import Method, as_method

_LIMIT = 2**31


def conv2d(
    x: Any,
    weight: Any,
    *,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] | str = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    method: str | Method = "mitchell",
    out: Any = None,
) -> Any:
    """Cross-correlate images with kernels, as `torch.nn.functional.conv2d` does.

    Parameters
    ----------
    x : array of shape (n, c, h, w) or (c, h, w)
        Images. Operands of one dtype: float32, float64, float16, bfloat16, int8, int16, int32,
        uint8, uint16 or uint32; on a CUDA device float32, float16, bfloat16, int8 or uint8.
    weight : array of shape (o, c / groups, kh, kw)
        Kernels, the second operand of every product.
    stride, dilation : int or pair of ints
        Steps between outputs and between the places of a kernel, along rows and columns.
    padding : int, pair of ints, "valid" or "same"
        Zeros added on every side: above and below, left and right. "valid" is 0. "same" gives the
        result the size of `x`, for stride 1; where that takes an odd number of zeros, the odd one
        lies below or to the right. A padded zero is multiplied like any other one.
    groups : int
        The channels of `x` and of the result fall into so many groups that do not mix; as many as
        `x` has channels for a depthwise convolution.
    method : str or Method
        One of `methods()`, or a method object.
    out : array, optional
        Where to write; of the result's shape and dtype, sharing no memory with `x` or `weight`.

    Returns
    -------
    array of shape (n, o, oh, ow) or (o, oh, ow)
        In the framework of `x`, or `out`; oh = (h + 2 padding - dilation (kh - 1) - 1) // stride +
        1, and ow likewise. Bits and dtype are those of `matmul` of the weights, of shape (o,
        c / groups * kh * kw), with the patches that they lie on.

    Raises
    ------
    TypeError, ValueError
        For operands, parameters or an `out` that do not fit, and for integers whose sums could
        overflow; nothing is written then.

    Examples
    --------
    >>> import numpy as np
    >>> import slipstick
    >>> x = np.float32([[[3, 1, 2]]])
    >>> slipstick.mitchell.conv2d(x, np.float32([[[[3, 2]]]]))
    array([[[10.,  7.]]], dtype=float32)
    >>> images, kernels = np.ones((2, 8, 5, 5), np.float16), np.ones((8, 1, 3, 3), np.float16)
    >>> slipstick.mitchell.conv2d(images, kernels, groups=8, padding="same", method="realm").shape
    (2, 8, 5, 5)
    """
    framework = framework_of("conv2d", x, out)
    native = as_method("conv2d", method)._in(framework.kernels)
    if isinstance(padding, str) and padding not in ("valid", "same"):
        raise ValueError(
            f"conv2d: `padding` must be an int, a pair of ints, 'valid' or 'same', got {padding!r}"
        )
    result = framework.kernels.conv2d(
        x,
        weight,
        _pair("stride", stride),
        (0, 0) if isinstance(padding, str) else _pair("padding", padding),
        padding == "same",
        _pair("dilation", dilation),
        _integer("groups", groups, "an int"),
        native,
        out,
        framework.empty,
    )
    return framework.finish(result)


def _integer(name: str, value: Any, expected: str, given: Any = None) -> int:
    try:
        number = None if isinstance(value, bool) else index(value)
    except TypeError:  # NumPy's arrays have an __index__ that serves for few of them
        number = None
    if number is None:
        kind = type(value).__name__
        raise TypeError(f"conv2d: `{name}` must be {expected}, got {given or kind}")
    # Beyond the limit any number is refused alike, with the reason.
    return max(-_LIMIT, min(number, _LIMIT))


def _pair(name: str, value: Any) -> tuple[int, int]:
    expected = "an int or a pair of ints"
    if not isinstance(value, tuple | list):
        single = _integer(name, value, expected)
        return single, single
    if len(value) != 2:
        raise ValueError(f"conv2d: `{name}` must be {expected}, got {value!r}")
    first, second = (_integer(name, one, expected, repr(value)) for one in value)
    return first, second
