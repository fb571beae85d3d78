"""Any model with approximate products, and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import nn

from slipstick import mitchell
from slipstick._backend import cuda_kernels
from slipstick._numbers import given
from slipstick.mitchell import Method
from slipstick.mitchell._methods import as_method
from slipstick.torch._layers import MitchellConv2d, MitchellLinear, set_choices
from slipstick.torch._methods import Gradient, check_derivative, check_gradient

__all__ = ["ApproximationReport", "approximate", "restore"]

_NAME = "approximate"
_SWAPS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: MitchellLinear,
    nn.Conv2d: MitchellConv2d,
}
_BACK = {swap: original for original, swap in _SWAPS.items()}
# Kinds of layers that multiply weights, and so belong into the report where they stay as they are.
_MULTIPLIERS = (
    nn.Linear,
    nn.Bilinear,
    nn.modules.conv._ConvNd,
    nn.RNNBase,
    nn.RNNCellBase,
    nn.MultiheadAttention,
)
_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
# What marks a layer that `approximate` swapped.
_SWAPPED = "_slipstick_swapped"
# What closes the ways that torch's encoders have around the layers below them: a fused inference,
# which reads their weights, and nested tensors for padded batches, which such an inference takes.
_CLOSING: dict[type[nn.Module], tuple[str, object]] = {
    nn.TransformerEncoderLayer: ("activation_relu_or_gelu", 0),
    nn.TransformerEncoder: ("use_nested_tensor", False),
}
_CLOSED = "_slipstick_closed"


@dataclass(frozen=True)
class ApproximationReport:
    """What `approximate` did.

    Attributes
    ----------
    swapped : tuple of str
        The names of the layers that multiply approximately now; of a shared one, the first.
    skipped : dict of str to str
        The layers that multiply as before, each with the reason.
    method : str
        The multiplier in force, with its parameters.
    gradient : str
        "mimic", "exact" or "straight-through".
    """

    swapped: tuple[str, ...]
    skipped: dict[str, str]
    method: str
    gradient: str

    def __str__(self) -> str:
        """Return one line a layer."""
        lines = [f"{len(self.swapped)} layers multiply by {self.method}, gradient {self.gradient}"]
        lines += [f"  {name or '(the model itself)'}" for name in self.swapped]
        if self.skipped:
            lines.append(f"{len(self.skipped)} layers stay exact")
            lines += [f"  {name or '(the model)'}: {why}" for name, why in self.skipped.items()]
        return "\n".join(lines)


def approximate(
    model: nn.Module,
    *,
    method: str | Method = "mitchell",
    gradient: Gradient = "mimic",
    include: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
) -> ApproximationReport:
    """Let the linear and convolutional layers of a model multiply approximately, in place.

    Parameters
    ----------
    model : nn.Module
        Its `nn.Linear` and `nn.Conv2d` become `MitchellLinear` and `MitchellConv2d`: the same
        objects with another class, so that parameters, buffers, hooks, the training flag, sharing,
        optimizers and the state_dict stay what they are.
    method : str or Method
        One of `slipstick.mitchell.methods()`, or an object such as ``DRUM(5)`` or a `Table`.
    gradient : {"mimic", "exact", "straight-through"}
        See `mitchell_matmul`.
    include, exclude : sequence of str, optional
        Names of modules as in ``model.named_modules()``, or patterns such as ``"layers.*.fc1"``;
        one that has layers below it stands for all of them. Without `include` all layers are
        swapped; `exclude` wins.

    Returns
    -------
    ApproximationReport

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit, a name that no module has among them, and for a method that
        does not take the dtype of a layer. No layer is changed then.

    Notes
    -----
    A call on a model that is approximate already sets another method. Subclasses of torch's layers,
    layers whose `forward` was replaced, quantized layers, and modules that read a layer's weights
    without calling it (`nn.MultiheadAttention`) stay exact; so do products outside layers. The path
    of that sort that `nn.TransformerEncoder` has for inference is closed until `restore`.

    Examples
    --------
    >>> import torch
    >>> from slipstick.torch import approximate, restore
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> print(approximate(model, method="drum", exclude=["2"]))
    1 layers multiply by DRUM(width=6), gradient mimic
      0
    1 layers stay exact
      2: excluded
    >>> restore(model)
    ('0',)
    """
    _check_model(_NAME, model)
    chosen = as_method(_NAME, method)
    check_gradient(_NAME, gradient)
    modules = dict(model.named_modules())
    wanted = None if include is None else _named("include", include, modules)
    unwanted = _named("exclude", exclude, modules)
    swapped: dict[str, nn.Module] = {}
    skipped: dict[str, str] = {}
    for name, module in modules.items():
        if not isinstance(module, _MULTIPLIERS) and not _is_quantized(module):
            continue
        if name in unwanted:
            skipped[name] = "excluded"
        elif wanted is not None and name not in wanted:
            skipped[name] = "not included"
        elif (why := _why_not(module)) is not None:
            skipped[name] = why
        else:
            swapped[name] = module
    _check_include(include, modules, swapped, skipped)
    for name, module in swapped.items():
        _check_method(name, module, chosen, gradient)
    for module in swapped.values():
        kind = _SWAPS.get(type(module))
        if kind is not None:
            module.__class__ = kind
            setattr(module, _SWAPPED, True)
        set_choices(module, method, gradient)
    for module in modules.values():
        _close_shortcut(module)
    return ApproximationReport(tuple(swapped), skipped, chosen.identity, gradient)


def restore(model: nn.Module) -> tuple[str, ...]:
    """Undo `approximate`: give layers their exact products back, in place.

    Parameters
    ----------
    model : nn.Module
        Any model; layers that were made as `MitchellLinear` or `MitchellConv2d` stay.

    Returns
    -------
    tuple of str
        The names of the layers that are exact again.

    Raises
    ------
    TypeError
        For what is no module.
    ValueError
        Where a layer has another class by now, as parametrizations give it. No layer is changed
        then.

    Examples
    --------
    >>> import torch
    >>> from slipstick.torch import approximate, restore
    >>> layer = torch.nn.Linear(4, 8)
    >>> approximate(layer).swapped
    ('',)
    >>> restore(layer), type(layer).__name__
    (('',), 'Linear')
    """
    _check_model("restore", model)
    for name, module in model.named_modules():
        if _SWAPPED in module.__dict__ and type(module) not in _BACK:
            raise ValueError(
                "restore: `model` must have its layers as approximate left them (take off what was "
                f"put on since), got a {type(module).__name__} at {name!r}"
            )
    restored = []
    for name, module in model.named_modules():
        if _SWAPPED in module.__dict__:
            module.__class__ = _BACK[type(module)]
            for attribute in (_SWAPPED, "method", "gradient"):
                delattr(module, attribute)
            restored.append(name)
        _reopen_shortcut(module)
    return tuple(restored)


def _check_model(function: str, model: object) -> None:
    if not isinstance(model, nn.Module):
        kind = f"the class {model.__name__}" if isinstance(model, type) else type(model).__name__
        raise TypeError(f"{function}: `model` must be a torch.nn.Module, got {kind}")


def _named(argument: str, names: object, modules: Iterable[str]) -> set[str]:
    """Return the names of all modules that some names or patterns stand for."""
    if isinstance(names, str) or not isinstance(names, Sequence | set | frozenset):
        kind = type(names).__name__
        raise TypeError(f"{_NAME}: `{argument}` must be a sequence of module names, got {kind}")
    found: set[str] = set()
    for name in names:
        if not isinstance(name, str):
            kind = type(name).__name__
            raise TypeError(f"{_NAME}: `{argument}` must hold module names, got {kind}")
        roots = [module for module in modules if module == name or fnmatchcase(module, name)]
        if not roots:
            raise ValueError(
                f"{_NAME}: `{argument}` must hold names of modules of the model, got {given(name)}"
            )
        for module in modules:
            if any(not root or module == root or module.startswith(f"{root}.") for root in roots):
                found.add(module)
    return found


def _check_include(
    include: Sequence[str] | None,
    modules: dict[str, nn.Module],
    swapped: dict[str, nn.Module],
    skipped: dict[str, str],
) -> None:
    """Refuse a name that was asked for and under which nothing can be swapped."""
    for name in include or ():
        below = _named("include", [name], modules)
        if below.isdisjoint(swapped) and not any(skipped.get(x) == "excluded" for x in below):
            why = next((skipped[x] for x in modules if x in below and x in skipped), None)
            if why is None:
                kinds = {type(modules[x]).__name__ for x in below}
                why = f"no such layer in {', '.join(sorted(kinds))}"
            raise ValueError(
                f"{_NAME}: `include` must hold names of nn.Linear or nn.Conv2d layers or of "
                f"modules with some, got {given(name)} ({why})"
            )


def _why_not(module: nn.Module) -> str | None:
    """Return why a layer cannot be swapped; None if it can."""
    kind = type(module)
    if isinstance(module, nn.MultiheadAttention):
        return "MultiheadAttention reads its weights without calling layers"
    if kind not in _SWAPS and kind not in _BACK:
        base = next((known for known in (*_BACK, *_SWAPS) if isinstance(module, known)), None)
        if base is not None:
            return f"{kind.__name__} is a subclass of {base.__name__} with ways of its own"
        return f"{kind.__name__} has no approximate form"
    if "forward" in module.__dict__ or "_conv_forward" in module.__dict__:
        return "its forward was replaced"
    weight = module.weight
    if not isinstance(weight, torch.Tensor) or weight.dtype not in _DTYPES:
        return f"its weight has dtype {getattr(weight, 'dtype', type(weight).__name__)}"
    if weight.device.type == "cuda" and cuda_kernels() is None:
        return f"its weight is on device {weight.device}, and slipstick was built without CUDA"
    if weight.device.type == "cuda" and weight.dtype == torch.float64:
        return "its weight has dtype torch.float64, which has no kernel on CUDA"
    if weight.device.type not in ("cpu", "cuda", "meta"):
        return f"its weight is on device {weight.device}, where there is no kernel"
    return None


def _is_quantized(module: nn.Module) -> bool:
    """Tell a quantized layer of torch's: `weight` is a method that unpacks its integers."""
    return callable(getattr(type(module), "weight", None))


def _check_method(name: str, module: nn.Module, method: Method, gradient: str) -> None:
    """Refuse a method that the products of a layer, or their gradient, could not use."""
    dtype = module.weight.dtype
    assert isinstance(dtype, torch.dtype)
    one = torch.ones((1, 1), dtype=dtype, device="cpu")
    try:
        mitchell.matmul(one, one, method=method)
    except (TypeError, ValueError) as error:
        reason = str(error).partition(": ")[2]
        raise type(error)(
            f"{_NAME}: `method` must take layer {name!r} of dtype {dtype}, got {method!r}, with "
            f"which matmul says: {reason}"
        ) from None
    check_derivative(_NAME, method, gradient, dtype)


def _close_shortcut(module: nn.Module) -> None:
    """Keep an encoder, or a layer of one, from going around approximate layers below it."""
    for kind, (attribute, closed) in _CLOSING.items():
        if (
            isinstance(module, kind)
            and _CLOSED not in module.__dict__
            and any(type(layer) in _BACK for layer in module.modules())
        ):
            module.__dict__[_CLOSED] = getattr(module, attribute)
            setattr(module, attribute, closed)


def _reopen_shortcut(module: nn.Module) -> None:
    for kind, (attribute, _) in _CLOSING.items():
        if isinstance(module, kind) and _CLOSED in module.__dict__:
            setattr(module, attribute, module.__dict__.pop(_CLOSED))
