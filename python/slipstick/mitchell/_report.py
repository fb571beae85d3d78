"""What a method gets wrong: statistics over all pairs of operands, or a sample of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from slipstick import _cpu
from slipstick._arrays import to_numpy
from slipstick._numbers import given
from slipstick.mitchell._base import Method
from slipstick.mitchell._methods import as_method
from slipstick.mitchell._pairs import (
    FLOATS,
    Pairs,
    all_pairs,
    float_array_pairs,
    float_pairs,
    sampled_pairs,
    weighted_pairs,
)
from slipstick.mitchell._rows import Totals, row_totals
from slipstick.mitchell._table_method import Table

if TYPE_CHECKING:
    from os import PathLike

__all__ = ["MAX_PAIRS_LISTED", "QUANTILES", "ErrorReport", "Progress", "error_report"]

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
MAX_PAIRS_LISTED = 256

Progress = Callable[[float], Any]


@dataclass(frozen=True)
class ErrorReport:
    """The errors of a method's products P against the exact products T.

    RE = (P - T) / T is the relative error and ED = P - T the error distance; the conventions follow
    Jiang et al., Proceedings of the IEEE 108(12), 2020. Fractions, not percent.

    Attributes
    ----------
    bias, mred : float
        Mean of RE and of its magnitude.
    peak_low, peak_high : float
        The smallest and the largest RE.
    variance : float
        Population variance of RE.
    med : float
        Mean of the magnitude of ED, over all pairs, those with a zero included.
    nmed : float
        `med` divided by the largest exact product: ``(2**n - 1)**2``, or ``2**(2*n - 2)`` if
        signed; for floats that of the pairs counted.
    error_rate : float
        Share of pairs with P != T, zeros included.
    worst_case : int or float
        Largest magnitude of ED.
    worst_pairs : tuple of (a, b)
        The pairs that attain the largest magnitude of RE, compared exactly for integers; at most
        256, smallest operands first. Empty where there is no error.
    quantiles : tuple of float
        5, 25, 50, 75 and 95 % of RE: the smallest RE that so large a share does not exceed.
    method : str
        The repr of the method; a `Table` shows its SHA-256.
    bits : int or str
        Width of the integer operands, or name of the float dtype.
    signed : bool
        Of the integer operands.
    count_zeros : bool
        Whether pairs with T = 0 count as RE = 0, or not at all, in what is made of RE.
    pairs : int
        Pairs counted; with `operands`, each as often as it occurs.
    relative_pairs : int
        Those of them that RE is taken over.
    worst_count : int
        How many different pairs `worst_pairs` would have without its limit.
    sample_size : int or None
        How many pairs were drawn; None where all were taken.
    weighted : bool
        Whether the pairs come from the caller's operands.
    quantile_resolution : float
        The quantiles' largest error: 0 where they are exact.
    """

    bias: float
    mred: float
    peak_low: float
    peak_high: float
    variance: float
    med: float
    nmed: float
    error_rate: float
    worst_case: int | float
    worst_pairs: tuple[tuple[int | float, int | float], ...]
    quantiles: tuple[float, ...]
    method: str
    bits: int | str
    signed: bool
    count_zeros: bool
    pairs: int
    relative_pairs: int
    worst_count: int
    sample_size: int | None
    weighted: bool
    quantile_resolution: float
    _method: Method = field(repr=False, compare=False)
    # Pairs by RE in steps of 2**-16, and where the first step begins.
    _histogram: tuple[float, NDArray[np.int64]] = field(repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return all figures as what JSON knows; a figure of no pairs is None."""
        result = {f.name: getattr(self, f.name) for f in fields(self) if f.name[0] != "_"}
        result["quantiles"] = {
            str(share): value for share, value in zip(QUANTILES, self.quantiles, strict=True)
        }
        result["worst_pairs"] = [list(pair) for pair in self.worst_pairs]
        return {name: _without_nan(value) for name, value in result.items()}

    def plot(self, path: str | PathLike[str] | None = None) -> Any:
        """Draw RE over the two mantissas, and its histogram.

        Parameters
        ----------
        path : path, optional
            Where to save the picture, in the format of its suffix.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        ImportError
            Without matplotlib.
        """
        from slipstick.mitchell._plot import plot

        return plot(self, path)

    def __str__(self) -> str:
        kind = self.bits if isinstance(self.bits, str) else _integers(self.bits, self.signed)
        source = " of the given arrays" if self.weighted else ""
        how = f"all {self.pairs:,} pairs{source}"
        if self.sample_size is not None:
            how = f"a stratified sample of {self.sample_size:,} pairs{source}"
        zero = "count as RE = 0" if self.count_zeros else "are left out"
        exact = (
            "exact"
            if self.quantile_resolution == 0
            else (f"to within {100 * self.quantile_resolution:.4f} %")
        )
        shares = ", ".join(f"{share:.0%}".rstrip("%") for share in QUANTILES)
        values = ", ".join(_percent(value) for value in self.quantiles)
        distance = f"{self.med:.6g} (mean), {self.worst_case:.10g} (largest)"
        lines = [
            f"{self.method} on {kind}, {how}",
            "  RE = (P - T) / T in percent; pairs with T = 0 "
            f"{zero} ({self.relative_pairs:,} pairs)",
            f"  mean RE (bias)      {_percent(self.bias)} %",
            f"  mean |RE| (MRED)    {_percent(self.mred)} %",
            f"  RE from ... to      {_percent(self.peak_low)} ... {_percent(self.peak_high)} %",
            f"  variance of RE      {_number(1e4 * self.variance)} %^2 (population)",
            f"  quantiles of RE     {values} % at {shares} % ({exact})",
            f"  ED = |P - T|        {distance}, over all pairs",
            f"  normalised mean ED  {_percent(self.nmed)} % of the largest exact product",
            f"  P != T              {_percent(self.error_rate)} % of all pairs",
            f"  largest |RE|        {self._worst_text()}",
        ]
        return "\n".join(lines)

    def _worst_text(self) -> str:
        if self.worst_count == 0:
            return "no pair has an error"
        shown = ", ".join(f"({a}, {b})" for a, b in self.worst_pairs[:4])
        more = ", ..." if self.worst_count > 4 else ""
        pairs = "pair" if self.worst_count == 1 else "pairs"
        return f"at {self.worst_count:,} {pairs}: {shown}{more}"


def _integers(bits: int, signed: bool) -> str:
    return f"{bits}-bit {'signed' if signed else 'unsigned'} integers"


def _number(value: float) -> str:
    return f"{value:.5g}"


def _percent(value: float) -> str:
    return f"{100 * value:.5g}"


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(item) for name, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def error_report(
    method: str | Method,
    bits: int | str = 8,
    *,
    signed: bool = False,
    operands: tuple[Any, Any] | None = None,
    count_zeros: bool = False,
    progress: Progress | None = None,
) -> ErrorReport:
    """Measure what a method's products get wrong.

    Parameters
    ----------
    method : str or Method
        One of `methods()`, or an object such as `DRUM(5)`.
    bits : int or str
        The width n of integer operands, 2 to 32, or "float32", "float64", "float16" or "bfloat16".
        An n-bit multiplier has fraction fields x and y of n - 1 bits and a product of 2 n bits,
        where it saturates. All pairs are taken up to 16 bits, all mantissas of the 16-bit floats.
        Wider operands are sampled: 2048 x 2048 equal cells over both operands (of floats: over both
        mantissas in the normal range, where the relative error does not depend on the exponents),
        one pair drawn from each, the same ones at every call.
    signed : bool
        Of integer operands: two's complement.
    operands : pair of arrays, optional
        Weights: every value of the first array is multiplied by every value of the second, as often
        as they occur. Integers must be operands of `bits` bits. Floats of one dtype, finite; `bits`
        is its name or is left alone; subnormals count as zero. Where there are more than 2**22
        different pairs of floats or of integers beyond 16 bits, 2048 x 2048 of them are taken at
        equal steps through both sorted arrays.
    count_zeros : bool
        Whether pairs whose exact product is 0 count as RE = 0. False, the default, leaves them out
        of the relative metrics.
    progress : callable, optional
        Called with the share that is done, up to 1.0, from time to time.

    Returns
    -------
    ErrorReport
        Does not depend on the number of threads.

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit, and for a method that does not take such operands.

    Notes
    -----
    Quantiles are exact but for integers of 9 to 16 bits: there they come from a histogram with
    steps of 2**-16. For float64 the exact product is taken rounded to float64. The distances of
    `bits="float32"` and the like are those of mantissas from 1 to 2.

    Examples
    --------
    >>> from slipstick.mitchell import error_report
    >>> report = error_report("mitchell")
    >>> round(100 * report.mred, 4), report.worst_case, len(report.worst_pairs)
    (3.7878, 4096, 49)
    """
    chosen = as_method("error_report", method)
    _check_flags(signed, count_zeros, progress)
    arrays = None if operands is None else _operands(operands)
    floats = _is_float(bits, arrays, signed)
    report = _float_report if floats else _integer_report
    result = report(chosen, bits, signed, arrays, count_zeros, progress)
    if progress is not None:
        progress(1.0)
    return result


def _check_flags(signed: object, count_zeros: object, progress: object) -> None:
    for name, value in (("signed", signed), ("count_zeros", count_zeros)):
        if not isinstance(value, bool):
            raise TypeError(f"error_report: `{name}` must be a bool, got {type(value).__name__}")
    if progress is not None and not callable(progress):
        kind = type(progress).__name__
        raise TypeError(f"error_report: `progress` must be a callable or None, got {kind}")


def _operands(operands: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    if not isinstance(operands, tuple | list) or len(operands) != 2:
        given = (
            f"{len(operands)} of them"
            if isinstance(operands, tuple | list)
            else (type(operands).__name__)
        )
        raise TypeError(f"error_report: `operands` must be a pair of arrays, got {given}")
    first, second = (to_numpy("error_report", "operands", array).ravel() for array in operands)
    first, second = (x.astype(x.dtype.newbyteorder("="), copy=False) for x in (first, second))
    for array in (first, second):
        if array.dtype.kind not in "iu" and array.dtype.name not in FLOATS:
            expected = "integer or a " + ", ".join(FLOATS[:-1]) + f" or {FLOATS[-1]}"
            raise TypeError(
                f"error_report: `operands` must have an {expected} dtype, got {array.dtype}"
            )
        if array.size == 0:
            raise ValueError("error_report: `operands` must not be empty, got an array of size 0")
    integers = [array.dtype.kind in "iu" for array in (first, second)]
    if integers[0] != integers[1] or (not integers[0] and first.dtype != second.dtype):
        raise TypeError(
            "error_report: `operands` must be integers both or floats of one dtype, "
            f"got {first.dtype} and {second.dtype}"
        )
    if first.size * second.size >= 2**62:
        raise ValueError(
            f"error_report: `operands` must have less than 2**62 pairs, "
            f"got {first.size} * {second.size}"
        )
    return first, second


def _is_float(bits: Any, arrays: tuple[NDArray[Any], NDArray[Any]] | None, signed: bool) -> bool:
    dtype = None if arrays is None else arrays[0].dtype
    if isinstance(bits, str):
        if bits not in FLOATS:
            expected = ", ".join(repr(name) for name in FLOATS)
            raise ValueError(
                f"error_report: `bits` must be from 2 to 32 or one of {expected}, got {bits!r}"
            )
        if dtype is not None and dtype.name != bits:
            raise TypeError(f"error_report: `operands` must have dtype {bits}, got {dtype}")
    elif isinstance(bits, bool) or not isinstance(bits, int | np.integer):
        kind = type(bits).__name__
        raise TypeError(f"error_report: `bits` must be an int or the name of a dtype, got {kind}")
    elif dtype is not None and dtype.kind not in "iu":
        if bits != 8:
            raise ValueError(
                f"error_report: `bits` must be left alone or {dtype.name!r} for operands of that "
                f"dtype, got {given(bits, str)}"
            )
    elif not 2 <= bits <= 32:
        raise ValueError(f"error_report: `bits` must be from 2 to 32, got {given(bits, str)}")
    else:
        return False
    if signed:
        raise ValueError("error_report: `signed` must be False for floats, got True")
    return True


def _integer_report(
    method: Method,
    bits: Any,
    signed: bool,
    arrays: tuple[NDArray[Any], NDArray[Any]] | None,
    count_zeros: bool,
    progress: Progress | None,
) -> ErrorReport:
    bits = int(bits)
    if isinstance(method, Table) and method.signed is None:
        raise ValueError(f"error_report: `method` must take integers, got {method!r} of mantissas")
    if isinstance(method, Table) and (bits != 8 or signed != method.signed):
        expected = _integers(8, bool(method.signed))
        raise ValueError(
            f"error_report: `bits` and `signed` must be those of {expected} for {method!r}, "
            f"got {_integers(bits, signed)}"
        )
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    histograms = None
    for array in arrays or ():
        smallest, largest = int(array.min()), int(array.max())
        if smallest < low or largest > high:
            wrong = smallest if smallest < low else largest
            raise ValueError(
                f"error_report: `operands` must be {_integers(bits, signed)}, "
                f"from {low} to {high}, got {wrong}"
            )
    if arrays is not None:
        histograms = tuple(np.unique(array, return_counts=True) for array in arrays)
    largest_product = 2 ** (2 * bits - 2) if signed else (2**bits - 1) ** 2
    if 8 < bits <= 16:
        totals = row_totals(method, bits, signed, histograms, progress)
        return _report_of_rows(totals, method, bits, signed, count_zeros, largest_product)
    if histograms is not None:
        pairs = weighted_pairs(method, bits, signed, *histograms)
    elif bits <= 8:
        pairs = all_pairs(method, bits, signed)
    else:
        pairs = sampled_pairs(method, bits, signed)
    return _report_of_pairs(pairs, method, bits, signed, count_zeros, largest_product)


def _float_report(
    method: Method,
    bits: Any,
    signed: bool,
    arrays: tuple[NDArray[Any], NDArray[Any]] | None,
    count_zeros: bool,
    progress: Progress | None,
) -> ErrorReport:
    if arrays is None:
        pairs = float_pairs(method, bits)
    else:
        bits = arrays[0].dtype.name
        for array in arrays:
            finite = np.isfinite(array.astype(np.float64))
            if not finite.all():
                wrong = array[~finite][0]
                raise ValueError(f"error_report: `operands` must be finite, got {wrong}")
        pairs = float_array_pairs(method, *arrays)
    largest = float(np.max(np.abs(pairs.exact)))
    return _report_of_pairs(pairs, method, bits, signed, count_zeros, largest)


def _report_of_pairs(
    pairs: Pairs,
    method: Method,
    bits: int | str,
    signed: bool,
    count_zeros: bool,
    largest_product: float,
) -> ErrorReport:
    weights, error, exact = pairs.weights, pairs.error, pairs.exact
    distance = np.abs(error)
    some = exact != 0
    counted = np.ones_like(some) if count_zeros else some
    relative = pairs.relative_errors()[counted]
    shares = None if weights is None else weights[counted]
    total = len(error) if weights is None else int(weights.sum())
    relative_total = len(relative) if shares is None else int(shares.sum())
    wrong = distance > 0
    n_wrong = int(np.count_nonzero(wrong)) if weights is None else int(weights[wrong].sum())
    if relative_total:
        mean = float(np.average(relative, weights=shares))
        figures: dict[str, Any] = {
            "bias": mean,
            "mred": float(np.average(np.abs(relative), weights=shares)),
            "peak_low": float(relative.min()),
            "peak_high": float(relative.max()),
            "variance": float(np.average((relative - mean) ** 2, weights=shares)),
            "quantiles": _exact_quantiles(relative, shares),
        }
    else:
        figures = dict.fromkeys(("bias", "mred", "peak_low", "peak_high", "variance"), math.nan)
        figures["quantiles"] = (math.nan,) * len(QUANTILES)
    med = _weighted_sum(distance, weights) / total
    worst, worst_count = pairs.worst(MAX_PAIRS_LISTED)
    return ErrorReport(
        **figures,
        med=med,
        nmed=med / largest_product if largest_product else math.nan,
        error_rate=n_wrong / total,
        worst_case=distance.max().item(),
        worst_pairs=worst,
        worst_count=worst_count,
        pairs=total,
        relative_pairs=relative_total,
        sample_size=total if pairs.sampled else None,
        weighted=pairs.weighted,
        quantile_resolution=0.0,
        _histogram=_histogram(relative, shares),
        **_identity(method, bits, signed, count_zeros),
    )


def _identity(method: Method, bits: int | str, signed: bool, count_zeros: bool) -> dict[str, Any]:
    return {
        "method": method.identity,
        "bits": bits,
        "signed": signed,
        "count_zeros": count_zeros,
        "_method": method,
    }


def _weighted_sum(values: NDArray[Any], weights: NDArray[np.int64] | None) -> int | float:
    if values.dtype.kind == "f":
        return float(values.sum() if weights is None else values @ weights)
    total = len(values) if weights is None else int(weights.sum())
    if int(values.max()) * total < 2**63:
        return int(values.sum() if weights is None else values @ weights)
    each: list[int] = values.tolist()
    times: list[int] = [1] * len(each) if weights is None else weights.tolist()
    return sum(value * time for value, time in zip(each, times, strict=True))


def _exact_quantiles(
    relative: NDArray[Any], weights: NDArray[np.int64] | None
) -> tuple[float, ...]:
    if weights is None:
        places = [math.ceil(share * len(relative)) - 1 for share in QUANTILES]
        ordered = np.partition(relative, sorted(set(places)))
        return tuple(float(ordered[place]) for place in places)
    order = np.argsort(relative, kind="stable")
    below = np.cumsum(weights[order])
    wanted = [math.ceil(share * int(below[-1])) for share in QUANTILES]
    return tuple(float(relative[order[np.searchsorted(below, want)]]) for want in wanted)


def _histogram(
    relative: NDArray[Any], weights: NDArray[np.int64] | None
) -> tuple[float, NDArray[np.int64]]:
    if len(relative) == 0:
        return 0.0, np.zeros(1, np.int64)
    unit = _cpu.error_bins_per_unit
    places = np.clip(np.floor(relative * unit), -4 * unit, 4 * unit).astype(np.int64)
    first = int(places.min())
    if weights is None:
        return first / unit, np.bincount(places - first)
    counts = np.zeros(int(places.max()) - first + 1, np.int64)
    np.add.at(counts, places - first, weights)
    return first / unit, counts


def _report_of_rows(
    totals: Totals,
    method: Method,
    bits: int,
    signed: bool,
    count_zeros: bool,
    largest_product: int,
) -> ErrorReport:
    unit = _cpu.error_bins_per_unit
    histogram = totals.histogram
    low, high, count = totals.low, totals.high, totals.nonzero
    if count_zeros and totals.pairs > count:
        low, high = min(low, 0.0), max(high, 0.0)
        histogram[unit] += totals.pairs - count
        count = totals.pairs
    mean = totals.relative / count if count else math.nan
    used = np.flatnonzero(histogram)
    first, last = (int(used[0]), int(used[-1])) if len(used) else (unit, unit)
    nothing = math.nan if not count else None
    med = totals.distance / totals.pairs
    return ErrorReport(
        bias=mean,
        mred=totals.magnitude / count if count else math.nan,
        peak_low=low if nothing is None else nothing,
        peak_high=high if nothing is None else nothing,
        variance=max(0.0, totals.square / count - mean**2) if count else math.nan,
        med=med,
        nmed=med / largest_product,
        error_rate=totals.wrong / totals.pairs,
        worst_case=totals.furthest,
        worst_pairs=totals.worst_pairs[:MAX_PAIRS_LISTED],
        worst_count=totals.worst_count,
        quantiles=tuple(_binned_quantile(histogram, share, low, high) for share in QUANTILES),
        pairs=totals.pairs,
        relative_pairs=count,
        sample_size=None,
        weighted=totals.weighted,
        quantile_resolution=1 / unit,
        _histogram=(first / unit - 1, histogram[first : last + 1]),
        **_identity(method, bits, signed, count_zeros),
    )


def _binned_quantile(histogram: NDArray[np.int64], share: float, low: float, high: float) -> float:
    below = np.cumsum(histogram)
    total = int(below[-1])
    if total == 0:
        return math.nan
    wanted = math.ceil(share * total)
    place = int(np.searchsorted(below, wanted))
    before = int(below[place]) - int(histogram[place])
    inside = (wanted - before) / int(histogram[place])
    return float(min(max((place + inside) / _cpu.error_bins_per_unit - 1, low), high))
