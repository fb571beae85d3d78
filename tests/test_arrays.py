"""Arrays in, arrays out: every framework, every layout, and what is refused."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import slipstick
from slipstick import mitchell

multiply = mitchell.multiply
A = np.float32([[1.5, -2.5, 3.0], [0.0, 5.5, -6.25]])
B = np.float32([[2.5, 1.5, -7.0], [8.0, 0.75, 1.25]])
EXPECTED = multiply(A, B)

DTYPES = ["float32", "float64", "float16", "bfloat16", "int8", "int16", "int32"]
DTYPES += ["uint8", "uint16", "uint32"]


def numpy_dtype(name: str) -> np.dtype:
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


@pytest.mark.parametrize("name", DTYPES)
def test_torch_gives_the_same_as_numpy(name):
    torch = pytest.importorskip("torch")
    a = A.astype(numpy_dtype(name)) if name[0] != "u" else np.abs(A).astype(name)
    tensor = torch.from_numpy(a.astype(np.float32)).to(getattr(torch, name))
    result = multiply(tensor, tensor)
    assert isinstance(result, torch.Tensor)
    expected = multiply(a, a)
    assert str(result.dtype) == f"torch.{expected.dtype}"
    np.testing.assert_array_equal(result.to(torch.float64).numpy(), expected.astype(np.float64))
    out = torch.empty_like(result)
    assert multiply(tensor, tensor, out=out) is out
    assert torch.equal(out, result)


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_jax_gives_the_same_as_numpy(name):
    jax = pytest.importorskip("jax")
    if name == "float64":
        pytest.skip("jax has no float64 unless its global configuration is changed")
    a = A.astype(numpy_dtype(name)) if name[0] != "u" else np.abs(A).astype(name)
    if name in ("int32", "uint32"):  # the product's 64-bit type does not exist in jax by default
        with pytest.raises(TypeError, match=rf"must have dtype {name[:-2]}64, which jax"):
            multiply(jax.numpy.asarray(a), jax.numpy.asarray(a))
        return
    result = multiply(jax.numpy.asarray(a), jax.numpy.asarray(a))
    assert isinstance(result, jax.Array)
    expected = multiply(a, a)
    assert result.dtype == expected.dtype
    np.testing.assert_array_equal(np.asarray(result), expected)
    with pytest.raises(ValueError, match=r"^multiply: `out` must be writable, got an immutable"):
        multiply(jax.numpy.asarray(a), jax.numpy.asarray(a), out=jax.numpy.asarray(expected))


class Capsule:
    """An array that offers nothing but DLPack, of the old or the new kind."""

    def __init__(self, array: np.ndarray, *, old: bool):
        self.array = array
        self.old = old

    def __dlpack__(self, **options):
        if self.old and options:
            raise TypeError("unexpected keyword argument")
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


@pytest.mark.parametrize("old", [False, True])
def test_any_dlpack_array(old):
    result = multiply(Capsule(A, old=old), Capsule(B, old=old))
    assert isinstance(result, np.ndarray)
    np.testing.assert_array_equal(result, EXPECTED)
    out = np.zeros_like(EXPECTED)
    multiply(A, B, out=Capsule(out, old=old))
    np.testing.assert_array_equal(out, EXPECTED)


def test_read_only_dlpack_arrays_are_read_and_not_written():
    frozen = A.copy()
    frozen.flags.writeable = False
    np.testing.assert_array_equal(multiply(Capsule(frozen, old=False), B), EXPECTED)
    with pytest.raises(
        ValueError, match=r"^multiply: `out` must be writable, got a read-only array"
    ):
        multiply(A, B, out=Capsule(frozen, old=False))
    np.testing.assert_array_equal(frozen, A)


def test_layouts():
    frozen = A.copy()
    frozen.flags.writeable = False
    np.testing.assert_array_equal(multiply(frozen, B), EXPECTED)
    np.testing.assert_array_equal(multiply(A[:, ::-1], B[:, ::-1]), EXPECTED[:, ::-1])
    np.testing.assert_array_equal(multiply(A[::-1], B[::-1]), EXPECTED[::-1])
    np.testing.assert_array_equal(multiply(A.T, B.T), EXPECTED.T)
    np.testing.assert_array_equal(
        multiply(A, np.broadcast_to(B[:, :1], A.shape))[:, 0], EXPECTED[:, 0]
    )
    np.testing.assert_array_equal(multiply(A[:, :0], B[:, :0]), EXPECTED[:, :0])
    point = multiply(A[0, 0, None][0:1].reshape(()), B[0, 0, None].reshape(()))
    assert point.shape == ()
    assert point == EXPECTED[0, 0]
    deep = A.reshape((1,) * 30 + A.shape)
    np.testing.assert_array_equal(multiply(deep, B).reshape(A.shape), EXPECTED)


def test_numpy_scalars_are_arrays_without_axes():
    np.testing.assert_array_equal(multiply(np.float32(2), A), 2 * A)


def test_torch_layouts():
    torch = pytest.importorskip("torch")
    a, b = torch.from_numpy(A), torch.from_numpy(B)
    np.testing.assert_array_equal(multiply(a.T, b.T).numpy(), EXPECTED.T)
    np.testing.assert_array_equal(multiply(a[:, 1:], b[:, 1:]).numpy(), EXPECTED[:, 1:])
    np.testing.assert_array_equal(multiply(a[:1].expand(2, 3), b).numpy()[0], EXPECTED[0])
    assert multiply(a[:0], b[:0]).shape == (0, 3)
    parameter = torch.nn.Parameter(a.clone())
    with torch.no_grad():
        np.testing.assert_array_equal(multiply(parameter, b).numpy(), EXPECTED)


def test_out_in_place():
    a, b = A.copy(), B.copy()
    assert multiply(a, b, out=a) is a
    np.testing.assert_array_equal(a, EXPECTED)
    np.testing.assert_array_equal(b, B)
    row = A[0].copy()
    multiply(row, row, out=row)
    np.testing.assert_array_equal(row, multiply(A[0], A[0]))


def test_out_between_the_operands_of_one_buffer():
    """Every other row or column of one buffer: interleaved, but without a shared byte."""
    buffer = np.zeros((4, 6), np.float32)
    buffer[::2, :3], buffer[1::2, 3:] = A, B
    multiply(buffer[::2, :3], buffer[1::2, 3:], out=buffer[::2, 3:])
    np.testing.assert_array_equal(buffer[::2, 3:], EXPECTED)
    columns = np.zeros((2, 9), np.float32)
    columns[:, ::3], columns[:, 1::3] = A, B
    multiply(columns[:, ::3], columns[:, 1::3], out=columns[:, 2::3])
    np.testing.assert_array_equal(columns[:, 2::3], EXPECTED)


LINE = np.arange(12, dtype=np.float32)
FROZEN = np.zeros((2, 3), np.float32)
FROZEN.flags.writeable = False


@pytest.mark.parametrize(
    ("out", "error", "message"),
    [
        (np.empty((2, 3)), TypeError, r"`out` must have dtype float32, got float64$"),
        (
            np.empty((3, 2), np.float32),
            ValueError,
            r"`out` must have shape \(2, 3\), got \(3, 2\)$",
        ),
        (np.empty(6, np.float32), ValueError, r"`out` must have shape \(2, 3\), got \(6,\)$"),
        (FROZEN, ValueError, r"`out` must be writable, got a read-only array$"),
        (
            np.lib.stride_tricks.as_strided(LINE, (2, 3), (4, 4)),
            ValueError,
            r"`out` must not overlap itself, got a view of shape \(2, 3\)",
        ),
        ([0.0] * 6, TypeError, r"`out` must be an array .*, got list$"),
        (np.float32(0), ValueError, r"`out` must be writable, got a read-only array$"),
    ],
)
def test_refused_out(out, error, message):
    before = np.array(out, copy=True)
    with pytest.raises(error, match="^multiply: " + message):
        multiply(A, B, out=out)
    np.testing.assert_array_equal(out, before)


def test_refused_overlap():
    line = np.arange(12, dtype=np.float32)
    before = line.copy()
    match = r"^multiply: `out` must not overlap `b`, got views that share memory without being the"
    with pytest.raises(ValueError, match=match):
        multiply(np.ones(6, np.float32), line[1:7], out=line[:6])
    with pytest.raises(ValueError, match=match):
        multiply(np.ones(6, np.float32), line[:6], out=line[5::-1])
    with pytest.raises(ValueError, match=r"^matmul: `out` must not overlap `a`"):
        mitchell.matmul(line.reshape(3, 4), np.ones((4, 4), np.float32), out=line.reshape(3, 4))
    np.testing.assert_array_equal(line, before)


def odd_address() -> np.ndarray:
    return np.zeros(17, np.uint8)[1:].view(np.float32)


def odd_strides() -> np.ndarray:
    return np.zeros(4, np.dtype([("tag", "u1"), ("value", "<f4")]))["value"]


@pytest.mark.parametrize(
    ("array", "error", "message"),
    [
        (
            [1.0, 2.0],
            TypeError,
            r"must be an array \(NumPy, or one that offers DLPack\), got list$",
        ),
        (3.0, TypeError, r"must be an array .*, got float$"),
        (None, TypeError, r"must be an array .*, got NoneType$"),
        (np.array(["a"]), TypeError, r"must have a real numeric dtype in native .*, got <U1$"),
        (np.array([None]), TypeError, r"must have a real numeric dtype .*, got object$"),
        (np.ones(3, np.complex64), TypeError, r"must have a real numeric dtype .*, got complex64$"),
        (np.ones(3, ">f4"), TypeError, r"must have a real numeric dtype in native .*, got >f4$"),
        (np.ones(3, np.longdouble), TypeError, r"must have a real numeric dtype .*, got float128$"),
        (
            np.ones(3, "datetime64[s]"),
            TypeError,
            r"must have a real numeric dtype .*, got datetime",
        ),
        (
            np.ones(3, ml_dtypes.float8_e4m3fn),
            TypeError,
            r"must have a real numeric .*, got float8",
        ),
        (
            np.ma.masked_array([1.0], [True]),
            TypeError,
            r"must be an array without a mask of its own",
        ),
        (odd_address(), ValueError, r"must be aligned to its elements \(copy it first\)"),
        (
            odd_strides(),
            ValueError,
            r"must have strides that are multiples .* a stride of 5 bytes$",
        ),
    ],
)
def test_refused_arrays(array, error, message):
    with pytest.raises(error, match="^multiply: `a` " + message):
        multiply(array, A)
    with pytest.raises(error, match="^multiply: `b` " + message):
        multiply(A, array)


def test_refused_tensors():
    torch = pytest.importorskip("torch")
    b = torch.ones(3)
    with pytest.raises(
        TypeError, match=r"^multiply: `a` must not require a gradient \(call \.detach"
    ):
        multiply(torch.ones(3, requires_grad=True), b)
    dense = (
        r"^multiply: `a` must be a dense array in memory, got a sparse, wrapped or lazily negated"
    )
    with pytest.raises(TypeError, match=dense):
        multiply(torch.ones(3).to_sparse(), b)
    with pytest.raises(TypeError, match=dense):
        multiply(torch.ones(3, device="meta"), b)
    with pytest.raises(TypeError, match=dense):
        multiply(torch.ones(3, dtype=torch.complex64).conj().imag, b)
    with pytest.raises(TypeError, match=dense):
        torch.func.vmap(lambda row: multiply(row, row))(torch.ones(3, 3))
    with pytest.raises(
        TypeError, match=r"^multiply: `a` must have a real numeric dtype, got DLPack"
    ):
        multiply(torch.ones(3, dtype=torch.complex64), b)


class OnAnotherDevice:
    """A DLPack array that says it lies in a GPU's memory."""

    def __dlpack__(self, **options):
        import ctypes

        capsule = np.ones(3, np.float32).__dlpack__()
        get = ctypes.pythonapi.PyCapsule_GetPointer
        get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
        # struct DLTensor { void* data; int32_t device_type; ... }: 2 is kDLCUDA.
        ctypes.c_int32.from_address(get(capsule, b"dltensor") + 8).value = 2
        return capsule


def test_refused_device():
    with pytest.raises(
        ValueError, match=r"^multiply: `a` must be on the CPU, got an array on CUDA"
    ):
        multiply(OnAnotherDevice(), A)


class OnlyForItsDevice:
    """An array on a GPU that says so, and is exported to it alone."""

    shape, ndim, dtype = (4, 8), 2, np.dtype(np.float32)

    def __dlpack_device__(self):
        return 2, 1

    def __dlpack__(self, **options):
        raise BufferError("exported to my own device only")


CODES = np.zeros((4, 2), np.uint8)


@pytest.mark.parametrize(
    ("function", "argument", "call"),
    [
        ("multiply", "b", lambda x: multiply(A, x)),
        ("attention", "query", lambda x: slipstick.attention(x, x, x)),
        ("attention", "key", lambda x: slipstick.attention(np.ones((1, 1, 4, 8)), x, x)),
        ("softmax", "scores", slipstick.softmax),
        ("project", "x", lambda x: slipstick.projection.project(x, 2)),
        ("hadamard", "x", slipstick.projection.hadamard),
        ("rotate", "x", slipstick.projection.rotate),
        ("hamming_distance", "b", lambda x: slipstick.lsh.hamming_distance(CODES, x)),
    ],
)
def test_functions_of_the_cpu_name_another_device(function, argument, call):
    with pytest.raises(ValueError, match="must be on the CPU, got an array on ") as caught:
        call(OnlyForItsDevice())
    assert str(caught.value) == (
        f"{function}: `{argument}` must be on the CPU, got an array on CUDA device 1"
    )


def test_a_failing_dlpack_method_is_named():
    """As of a deleted or a traced jax array."""

    class Broken:
        def __dlpack__(self, **options):
            raise BufferError("no memory to show\nin two lines")

    message = (
        r"^multiply: `a` must give its memory by __dlpack__, got a Broken that says: no memory to "
        r"show$"
    )
    with pytest.raises(ValueError, match=message):
        multiply(Broken(), A)

    class Interrupted:
        def __dlpack__(self, **options):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        multiply(Interrupted(), A)

    class NoCapsule:
        def __dlpack__(self, **options):
            return 3

    with pytest.raises(
        TypeError, match=r"^multiply: `a` must return a DLPack capsule .*, got int$"
    ):
        multiply(NoCapsule(), A)
