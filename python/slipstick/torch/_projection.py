"""Random projection of tensors, a linear map with a linear gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from slipstick import projection
from slipstick.projection._arguments import integer
from slipstick.projection._law import components, law_of
from slipstick.torch import _checks, _library

__all__ = ["project"]


def project(
    x: Tensor,
    n_components: int,
    *,
    kind: str = "rademacher",
    seed: int = 0,
    density: float | None = None,
    first_feature: int = 0,
) -> Tensor:
    """Project the last axis of a tensor onto `n_components` random directions.

    Its gradient is `slipstick.projection.back_project`, whose own gradient is this function again:
    derivatives of any order are there, and in forward mode.

    Parameters
    ----------
    x : Tensor of shape (..., n_features)
        Floats, integers or bools; float tensors have a gradient, and autocast casts them.
    n_components, kind, seed, density, first_feature
        As for `slipstick.projection.project`.

    Returns
    -------
    Tensor of shape (..., n_components)
        The bits of `slipstick.projection.project`, on the CPU and on CUDA devices; float64 for
        integers.

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit.

    Notes
    -----
    Source: D. Achlioptas, "Database-friendly random projections", 2003, for random signs.

    Examples
    --------
    >>> import torch
    >>> from slipstick.torch import project
    >>> x = torch.ones(2, 1000, requires_grad=True)
    >>> y = project(x, 16, seed=7)
    >>> y.square().sum().backward()
    >>> y.shape, x.grad.shape
    (torch.Size([2, 16]), torch.Size([2, 1000]))
    """
    _checks.tensors("project", ("x",), x, cuda=True)
    if x.ndim == 0 or x.shape[-1] == 0:
        raise ValueError(f"project: `x` must have at least one feature, got shape {tuple(x.shape)}")
    n_components = components("project", kind, n_components)
    first_feature = integer("project", "first_feature", first_feature, 0, 64)
    width = 1 if kind == "sparse" and density is None and first_feature == 0 else None
    law_of("project", kind, seed, n_components, density, width)
    numbers = (_signed(integer("project", "seed", seed, 0, 64)), density, _signed(first_feature))
    result: Tensor = _project_op(x, n_components, kind, *numbers)
    return result


# --- The operators --------------------------------------------------------------------------------


def _signed(number: int) -> int:
    """Return the int64 of the same 64 bits, which is what an operator can hold."""
    return number - (1 << 64) if number >> 63 else number


def _law(kind: str, seed: int, density: float | None, first_feature: int) -> dict[str, Any]:
    bits = (1 << 64) - 1
    return {
        "kind": kind,
        "seed": seed & bits,
        "density": density,
        "first_feature": first_feature & bits,
    }


def _project(
    x: Tensor,
    n_components: int,
    kind: str = "rademacher",
    seed: int = 0,
    density: float | None = None,
    first_feature: int = 0,
) -> Any:
    return projection.project(x, n_components, **_law(kind, seed, density, first_feature))


def _back_project(
    y: Tensor,
    n_features: int,
    kind: str = "rademacher",
    seed: int = 0,
    density: float | None = None,
    first_feature: int = 0,
) -> Any:
    return projection.back_project(y, n_features, **_law(kind, seed, density, first_feature))


def _fake(x: Tensor, size: int, *rest: Any) -> Tensor:
    dtype = x.dtype if x.dtype.is_floating_point else torch.float64
    return x.new_empty((*x.shape[:-1], size), dtype=dtype)


_LAW = "str kind='rademacher', int seed=0, float? density=None, int first_feature=0"
_project_op = _library.define(
    "project",
    f"(Tensor x, SymInt n_components, {_LAW}) -> Tensor",
    kernel=_project,
    fake=_fake,
)
_back_project_op = _library.define(
    "back_project",
    f"(Tensor y, SymInt n_features, {_LAW}) -> Tensor",
    kernel=_back_project,
    fake=_fake,
)


def _setup(ctx: Any, args: tuple[Any, ...], output: Tensor) -> None:
    x, ctx.components, *ctx.law = args
    ctx.size = x.shape[-1]


def _backward_by(adjoint: Any) -> Any:
    def backward(ctx: Any, grad: Tensor) -> Any:
        return adjoint(grad, ctx.size, *ctx.law), None, *(None for _ in ctx.law)

    return backward


def _vmap_of(op: Any) -> Any:
    def rule(info: Any, in_dims: tuple[int | None, ...], x: Tensor, *rest: Any) -> Any:
        return op(_library.first(x, in_dims[0], info.batch_size), *rest), 0

    return rule


def _jvp_of(op: Any) -> Any:
    def jvp(ctx: Any, tangent: Tensor, *rest: Any) -> Any:
        return op(tangent, ctx.components, *ctx.law)

    return jvp


for _name, _op, _adjoint, _kernel in (
    ("project", _project_op, _back_project_op, _project),
    ("back_project", _back_project_op, _project_op, _back_project),
):
    _library.autograd(_name, _setup, _backward_by(_adjoint), kernel=_kernel, jvp=_jvp_of(_op))
    _library.vmap(_name, _vmap_of(_op))
_library.autocast("project", 1)
