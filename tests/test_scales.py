"""The scales: formulas, presets, lowering and the messages of bad parameters."""

import dataclasses
import math

import numpy as np
import pytest

from slipstick.scales import ClippedLogN, LogN, Scale, SSMax, Su, Temperature

COUNTS = [1, 2, 3, 7, 64, 511, 512, 513, 8191, 8192, 8193, 131072, 10**6, 2**31]

# Both sides round at most 8 times (logarithms twice as much as one operation), so they differ by at
# most 2 * 8 * 2^-53 = 1.8e-15 of the largest term; no law here cancels between its terms.
RTOL = 2e-15

LAWS = [
    (LogN(), lambda n, d: math.log(n) / (math.log(512) * math.sqrt(d)), math.sqrt),
    (LogN(base=1.5), lambda n, d: math.log(n) / (math.log(1.5) * math.sqrt(d)), math.sqrt),
    (Su(1.25), lambda n, d: 1.25 * math.log(n) / d, float),
    (Su(-3), lambda n, d: -3 * math.log(n) / d, float),
    (
        ClippedLogN(2048),
        lambda n, d: max(1, math.log(n) / math.log(2048)) / math.sqrt(d),
        math.sqrt,
    ),
    (SSMax(0.43), lambda n, d: 0.43 * math.log(n) / math.sqrt(d), math.sqrt),
    (SSMax(0.43, b=0.5), lambda n, d: (0.43 * math.log(n) + 0.5) / math.sqrt(d), math.sqrt),
    (
        Temperature(0.1, 8192, offset=1),
        lambda n, d: (1 + 0.1 * math.log(1 + n // 8192)) / math.sqrt(d),
        math.sqrt,
    ),
    (
        Temperature(0.3, 100),
        lambda n, d: (1 + 0.3 * math.log(1 + (n - 1) // 100)) / math.sqrt(d),
        math.sqrt,
    ),
]


@pytest.mark.parametrize(("scale", "law", "unit"), LAWS, ids=[repr(row[0]) for row in LAWS])
def test_factor_follows_the_formula(scale, law, unit):
    for dim in (1, 3, 64, 80, 128):
        expected = [law(n, dim) for n in COUNTS]
        np.testing.assert_allclose(scale.factor(COUNTS, dim=dim), expected, rtol=RTOL, atol=0)
        # The softmax form is the same law without its factor of d.
        np.testing.assert_allclose(
            scale.factor(COUNTS), [unit(dim) * x for x in expected], rtol=RTOL, atol=0
        )


@pytest.mark.parametrize("scale", [row[0] for row in LAWS], ids=repr)
def test_a_count_below_one_is_taken_as_one(scale):
    assert np.array_equal(scale.factor([0, -5], dim=64), scale.factor([1, 1], dim=64))
    assert np.isfinite(scale.factor(0))


@pytest.mark.parametrize("scale", [LogN(), Su(2.0), SSMax(0.5), SSMax([0.5, -1.0])], ids=repr)
def test_one_key_gives_exactly_zero(scale):
    assert np.all(scale.factor(1, dim=64) == 0)


@pytest.mark.parametrize("dim", [1, 16, 32, 48, 64, 80, 96, 112, 128, 192, 256])
def test_log_n_is_ordinary_attention_at_its_base(dim):
    assert np.float32(LogN(512).factor(512, dim=dim)) == np.float32(1 / math.sqrt(dim))


def test_log_n_is_su_with_the_kappa_of_the_documentation():
    kappa = math.sqrt(64) / math.log(512)
    np.testing.assert_allclose(
        LogN(512).factor(COUNTS, dim=64), Su(kappa).factor(COUNTS, dim=64), rtol=RTOL, atol=0
    )


def test_presets_equal_the_published_laws():
    # Qwen-1: log_L(i) if i > L else 1, i = position + 1.
    qwen = [math.log(i) / math.log(2048) if i > 2048 else 1.0 for i in COUNTS]
    np.testing.assert_allclose(ClippedLogN(2048).factor(COUNTS), qwen, rtol=RTOL)
    # Llama-4, from the position.
    llama = [1 + 0.1 * math.log(math.floor(n / 8192) + 1) for n in COUNTS]
    np.testing.assert_allclose(Temperature(0.1, 8192, offset=1).factor(COUNTS), llama, rtol=RTOL)
    # Mistral-3, from the position.
    mistral = [1 + 0.1 * math.log(1 + math.floor((n - 1) / 16384)) for n in COUNTS]
    np.testing.assert_allclose(Temperature(0.1, 16384).factor(COUNTS), mistral, rtol=RTOL)


def test_temperature_steps_exactly_at_multiples_of_its_length():
    for length in (1, 3, 7, 8192, 10**6 + 3):
        edges = length * np.array([1, 2, 3, 1000, 10**6])
        scale = Temperature(1.0, length)
        # The position of count n is n - 1.
        expected = 1 + np.log(1 + edges // length)
        np.testing.assert_allclose(scale.factor(edges + 1), expected, rtol=RTOL, atol=0)
        if length > 1:
            assert np.all(scale.factor(edges) < scale.factor(edges + 1))


def test_heads_take_the_second_last_axis():
    scale = SSMax([0.25, 0.5, 1.0], b=[0.0, 1.0, 2.0])
    heads = [SSMax(s, b) for s, b in zip(scale.s, scale.b, strict=True)]
    counts = np.array([[1, 2, 3, 4], [5, 6, 7, 8]])  # (batch, queries)
    factor = scale.factor(counts[:, np.newaxis], dim=16)
    assert factor.shape == (2, 3, 4)
    for h, head in enumerate(heads):
        assert np.array_equal(factor[:, h], head.factor(counts, dim=16))
    assert scale.factor(7).shape == (3, 1)
    assert SSMax([0.25]).factor(counts).shape == counts.shape


def test_a_number_goes_with_every_head():
    assert np.array_equal(SSMax([1, 2], b=0.5).factor([9]), SSMax([1, 2], b=[0.5, 0.5]).factor([9]))
    assert np.array_equal(SSMax(1, b=[0.5, 1]).factor([9]), SSMax([1, 1], b=[0.5, 1]).factor([9]))


@pytest.mark.parametrize(
    ("scale", "kind", "shape"),
    [
        (LogN(), "affine_log", (1, 2)),
        (Su(1.0), "affine_log", (1, 2)),
        (SSMax(1.0, b=[1, 2, 3]), "affine_log", (3, 2)),
        (ClippedLogN(4096), "clipped_log", (1, 2)),
        (Temperature(0.1, 8192), "temperature", (1, 4)),
    ],
    ids=repr,
)
def test_lowering_gives_what_a_kernel_needs(scale, kind, shape):
    lowered_kind, params = scale._lower(64)
    assert lowered_kind == kind
    assert params.shape == shape
    assert params.dtype == np.float64
    assert params.flags.c_contiguous


def test_scales_are_values():
    assert SSMax(np.array([1.0, 2.0])) == SSMax([1, 2])
    assert len({LogN(), LogN(512), LogN(512.0), SSMax([1, 2]), SSMax((1.0, 2.0))}) == 2
    assert repr(SSMax(np.float32([0.5, 1]))) == "SSMax(s=(0.5, 1.0), b=0.0)"
    with pytest.raises(dataclasses.FrozenInstanceError):
        LogN().base = 2
    with pytest.raises(TypeError, match="abstract"):
        Scale()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: LogN(base=1),
            ValueError,
            "LogN: `base` must be a finite number greater than 1, got 1",
        ),
        (
            lambda: LogN(math.inf),
            ValueError,
            "LogN: `base` must be a finite number greater than 1, got inf",
        ),
        (
            lambda: LogN(math.nan),
            ValueError,
            "LogN: `base` must be a finite number greater than 1, got nan",
        ),
        (
            lambda: LogN("e"),
            TypeError,
            "LogN: `base` must be a finite number greater than 1, got 'e'",
        ),
        (
            lambda: ClippedLogN(0.5),
            ValueError,
            "ClippedLogN: `train_length` must be a finite number greater than 1, got 0.5",
        ),
        (lambda: Su(math.inf), ValueError, "Su: `kappa` must be a finite number, got inf"),
        (lambda: Su([1.0]), TypeError, "Su: `kappa` must be a finite number, got [1.0]"),
        (lambda: SSMax(math.nan), ValueError, "SSMax: `s` must be a finite number, got nan"),
        (
            lambda: SSMax([1.0, math.inf]),
            ValueError,
            "SSMax: `s` must be finite, got [1.0, inf]",
        ),
        (
            lambda: SSMax([[1.0], [2.0]]),
            ValueError,
            "SSMax: `s` must be a number or a 1-D array with one entry a head, got shape (2, 1)",
        ),
        (
            lambda: SSMax(1.0, b=[]),
            ValueError,
            "SSMax: `b` must be a number or a 1-D array with one entry a head, got shape (0,)",
        ),
        (
            lambda: SSMax("steep"),
            TypeError,
            "SSMax: `s` must be a number or a 1-D array, got 'steep'",
        ),
        (
            lambda: SSMax([1, 2], b=[1, 2, 3]),
            ValueError,
            "SSMax: `b` must have 2 entries like `s`, got 3",
        ),
        (
            lambda: Temperature(math.nan, 8),
            ValueError,
            "Temperature: `beta` must be a finite number, got nan",
        ),
        (
            lambda: Temperature(0.1, 0),
            ValueError,
            "Temperature: `length` must be an integer >= 1, got 0",
        ),
        (
            lambda: Temperature(0.1, 8.0),
            TypeError,
            "Temperature: `length` must be an integer >= 1, got 8.0",
        ),
        (
            lambda: Temperature(0.1, 8, offset=-1),
            ValueError,
            "Temperature: `offset` must be an integer >= 0, got -1",
        ),
        (
            lambda: LogN().factor([1.0]),
            TypeError,
            "factor: `n` must hold integers, got dtype float64",
        ),
        (
            lambda: LogN().factor(1, dim=0),
            ValueError,
            "factor: `dim` must be an integer >= 1, got 0",
        ),
    ],
)
def test_bad_parameters_say_what_was_expected(make, error, message):
    with pytest.raises(error) as caught:
        make()
    assert str(caught.value) == message


def test_any_integer_is_a_length():
    """NumPy's too, 0-d arrays included: kept as an int, so that the scale can be a key."""
    made = Temperature(0.1, np.array(5), offset=np.uint8(3))
    assert (made, hash(made)) == (Temperature(0.1, 5, 3), hash(Temperature(0.1, 5, 3)))
