"""How operators are registered: one library, and the rules that several operators share."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._functorch.autograd_function import (  # type: ignore[attr-defined]
    enable_single_level_autograd_function,
)
from torch.autograd import forward_ad
from torch.autograd.function import _SingleLevelFunction

Kernel = Callable[..., Any]

# define and impl instead of the decorator `custom_op`, which costs 5 us more for every call. The
# object has to stay alive: its end takes the operators away.
LIBRARY = torch.library.Library("slipstick", "DEF")

# Looked up once: a call of an operator takes a few microseconds in all.
_is_compiling = torch.compiler.is_compiling
_is_grad_enabled = torch.is_grad_enabled
_is_forward_mode = torch._C._is_fwd_grad_enabled
_set_forward_mode = forward_ad._set_fwd_grad_enabled
_any_requires_grad = torch._C._any_requires_grad
_below_autograd = torch._C._AutoDispatchBelowAutograd
_included = torch._C._dispatch_tls_local_include_set
_excluded = torch._C._dispatch_tls_local_exclude_set
_function_mode = torch._C._is_torch_function_mode_enabled
_profiled = torch.autograd._profiler_enabled  # type: ignore[attr-defined]

_AUTOCAST = {
    "cpu": ("AutocastCPU", torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU)),
    "cuda": ("AutocastCUDA", torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCUDA)),
}


def define(name: str, signature: str, *, kernel: Kernel, fake: Kernel) -> Any:
    """Register ``slipstick::name`` for the CPU, GPUs and shapes alone, and return its overload.

    The function that `kernel` calls goes by where its tensors are.

    Arguments that are rarely given stand at the end of the signature with a default: the dispatcher
    does not hand those on to Python, which saves 0.3 us for each of them and layer.
    """
    LIBRARY.define(f"{name}{signature}", tags=(torch.Tag.pt2_compliant_tag,))
    for device in ("CPU", "CUDA"):
        LIBRARY.impl(name, kernel, device)
    torch.library.register_fake(f"slipstick::{name}", fake, lib=LIBRARY)
    return getattr(torch.ops.slipstick, name).default


# --- Past the dispatcher --------------------------------------------------------------------------


def _state() -> tuple[int, int]:
    """Return the keys that the dispatcher adds in this thread, and those that it leaves out."""
    return _included().raw_repr(), _excluded().raw_repr()


def _states_at_rest() -> frozenset[tuple[int, int]]:
    """Return the states of a thread in which nothing but autograd comes before the kernel."""
    found = set()

    def note() -> None:
        found.add(_state())
        with torch.inference_mode():
            found.add(_state())

    # In a thread of its own, because whoever imports this module may be under a mode.
    thread = threading.Thread(target=note)
    thread.start()
    thread.join()
    return frozenset(found)


_AT_REST = _states_at_rest()
# The types of arguments of operators, without subclasses of tensors.
_ORDINARY = frozenset({Tensor, bool, int, float, str, list, type(None)})


def at_once(kernel: Kernel, *args: Any) -> Any:
    """Run a kernel without the dispatcher where that would do nothing else; None where it would.

    A call through the dispatcher costs 10 us, and finds the kernel at once unless there is a
    gradient to come, a subclass of Tensor, a graph in the making, or something that works in this
    thread: a transformation of torch.func, autocast, a mode, a tracer, the profiler. All but the
    first three and modes of functions and the profiler show in the dispatcher's state.
    """
    if (
        not _is_compiling()
        and _ORDINARY.issuperset(map(type, args))
        and not has_derivative(*args)
        and _state() in _AT_REST
        and not _function_mode()
        and not _profiled()
    ):
        try:
            return kernel(*args)
        except (TypeError, ValueError, RuntimeError):
            # What does not fit will not fit the dispatcher either, or does: lazily negated tensors.
            return None
    return None


# --- Derivatives ----------------------------------------------------------------------------------


def needs_gradient(*args: Any) -> bool:
    """Tell whether a backward pass through these arguments may come."""
    return _is_grad_enabled() and _any_requires_grad(*args)


def has_derivative(*args: Any) -> bool:
    """Tell whether arguments may have a derivative: one backwards, or one forwards (a tangent)."""
    return needs_gradient(*args) or forward_ad._current_level >= 0


def autograd(
    name: str, setup: Kernel, backward: Kernel, *, kernel: Kernel, jvp: Kernel | None = None
) -> None:
    """Register what an operator keeps for its backward pass, and that pass.

    ``setup(ctx, args, output)`` and ``backward(ctx, *grads)`` see the arguments without trailing
    ones that have their default. `kernel` is that of the operator, `jvp` takes ctx and tangents;
    without it, derivatives forwards are refused.

    Not ``torch.library.register_autograd``, whose operators torch.func refuses (torch 2.13): its
    function is one for all levels of transformations. Ours is one for a single level, which is what
    a kernel of an operator is called for, one level at a time.
    """
    op = getattr(torch.ops.slipstick, name).default

    def forward(ctx: Any, modes: tuple[bool, bool], *args: Any) -> Any:
        # Under torch.func the call goes on to the levels further out, whose derivatives must not be
        # turned off with those of this one.
        with torch.set_grad_enabled(modes[0]), _set_forward_mode(modes[1]), _below_autograd():
            output = op(*args)
        setup(ctx, args, output)
        return output

    def backwards(ctx: Any, *grads: Any) -> Any:
        return None, *backward(ctx, *grads)

    def forwards(ctx: Any, _: None, *tangents: Any) -> Any:
        if jvp is None:
            raise NotImplementedError(
                f"{name.removesuffix('_with_stats')}: has no derivative in forward mode, which "
                "torch.func.jvp, jacfwd and hessian take"
            )
        return jvp(ctx, *tangents)

    members = {"forward": forward, "backward": backwards, "jvp": forwards}
    statics = {key: staticmethod(member) for key, member in members.items()}
    function: Any = type(f"slipstick_{name}", (_SingleLevelFunction,), statics)

    def differentiable(*args: Any) -> Any:
        if (result := at_once(kernel, *args)) is not None:
            return result
        if not has_derivative(*args):
            with _below_autograd():
                return op(*args)
        if torch._C._are_functorch_transforms_active():
            with enable_single_level_autograd_function():
                return function.apply((_is_grad_enabled(), _is_forward_mode()), *args)
        return function.apply((False, False), *args)

    LIBRARY.impl(name, differentiable, "Autograd")


def without_gradient(name: str, kernel: Kernel) -> None:
    """Let an operator's results refuse a backward pass: gradients of gradients are not there."""

    def backward(ctx: Any, *grads: Any) -> Any:
        raise NotImplementedError(f"{name}: has no gradient of its own (no second derivatives)")

    autograd(name, lambda ctx, inputs, output: None, backward, kernel=kernel)


# --- Rules ----------------------------------------------------------------------------------------


def vmap(name: str, rule: Kernel) -> None:
    """Register what ``torch.vmap`` does with an operator."""
    torch.library.register_vmap(f"slipstick::{name}", rule, lib=LIBRARY)


def autocast(name: str, operands: int) -> None:
    """Cast the first arguments to autocast's dtype, as torch does for matrix products."""
    for device in _AUTOCAST:
        _autocast_on(device, name, operands)


def _autocast_on(device: str, name: str, operands: int) -> None:
    op = getattr(torch.ops.slipstick, name).default
    key, keys = _AUTOCAST[device]

    def kernel(*args: Any) -> Any:
        dtype = torch.get_autocast_dtype(device)
        cast = (_cast(argument, dtype) for argument in args[:operands])
        with torch._C._ExcludeDispatchKeyGuard(keys):
            return op(*cast, *args[operands:])

    LIBRARY.impl(name, kernel, key)


def _cast(argument: Any, dtype: torch.dtype) -> Any:
    # float64 stays what it is, as everywhere under autocast.
    if isinstance(argument, Tensor) and argument.is_floating_point():
        return argument if argument.dtype == torch.float64 else argument.to(dtype)
    return argument


def one_by_one(op: Any) -> Kernel:
    """Return a rule for ``torch.vmap`` that runs an operator for each element of the batch.

    Always right, and for operators whose own batch cannot take the batch of vmap.
    """

    def rule(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> Any:
        def call(index: int) -> Any:
            return op(
                *(
                    _element(argument, dim, index)
                    for argument, dim in zip(args, in_dims, strict=True)
                )
            )

        results = [call(index) for index in range(max(info.batch_size, 1))]
        if isinstance(results[0], Tensor):
            return torch.stack(results)[: info.batch_size], 0
        parts = tuple(torch.stack(part)[: info.batch_size] for part in zip(*results, strict=True))
        return parts, (0,) * len(parts)

    return rule


def _element(argument: Any, dim: Any, index: int) -> Any:
    if not isinstance(dim, int):  # None, or one None for each number of a list
        return argument
    if argument.shape[dim] == 0:  # an empty batch has no element; its shape is still needed
        return argument.sum(dim, dtype=argument.dtype)
    return argument.select(dim, index)


def first(argument: Tensor, dim: int | None, size: int) -> Tensor:
    """Return a tensor with the batch axis of vmap in front, stretched where it had none."""
    if dim is None:
        return argument.expand(size, *argument.shape)
    return argument.movedim(dim, 0)
