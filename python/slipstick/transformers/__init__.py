"""Attention of transformers' models: one argument switches a model to the kernels of this package.

`register` gives transformers an attention function and the mask function that belongs to it; then
``attn_implementation="slipstick"`` is all that a model, or a `SentenceTransformer`, has to be told.
A model gives its own results; a scale of `slipstick.scales` makes its attention keep its entropy
when lengths change.
"""

import inspect as _inspect

try:
    from transformers.masking_utils import sdpa_mask as _sdpa_mask
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "transformers":
        raise  # transformers is there, and lacks something itself
    message = (
        "slipstick.transformers: transformers of at least version 5.4 must be installed, got none "
        "or an older one"
    )
    raise ImportError(message) from error

# Mask functions are told a number of queries and where they begin since transformers 5.4.
if not {"q_length", "q_offset"} <= set(_inspect.signature(_sdpa_mask).parameters):
    import transformers as _transformers

    raise ImportError(
        "slipstick.transformers: transformers must have at least version 5.4, got "
        f"{_transformers.__version__}"
    )

from slipstick.transformers._registry import register, unregister, use

__all__ = ["register", "unregister", "use"]
