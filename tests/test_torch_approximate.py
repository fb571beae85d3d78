"""`slipstick.torch.approximate` and `restore`: any model with approximate products, and back."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from slipstick.mitchell import DRUM, Table

pytest.importorskip("torch")
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize, prune

from slipstick.torch import MitchellConv2d, MitchellLinear, approximate, restore


class Network(nn.Module):
    """A small CNN with an MLP behind it, one layer of which is used twice."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Conv2d(4, 4, 3, stride=2, groups=2, padding=1, padding_mode="reflect"),
            nn.ReLU(),
        )
        self.head = nn.ModuleDict({"first": nn.Linear(64, 16), "again": nn.Linear(16, 16)})
        self.head["shared"] = self.head["again"]
        self.out = nn.Linear(16, 3)

    def forward(self, x):
        x = torch.relu(self.head["first"](self.features(x).flatten(1)))
        return self.out(torch.relu(self.head["shared"](torch.relu(self.head["again"](x)))))


IMAGES = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(6) % 3
ALL = ("features.0", "features.3", "head.first", "head.again", "out")


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Network().eval()


def test_swap_and_restore(model):
    before = model(IMAGES)
    state = {name: x.clone() for name, x in model.state_dict().items()}
    parameters = dict(model.named_parameters())
    modules = dict(model.named_modules())
    report = approximate(model, method="drum", gradient="straight-through")
    assert report.swapped == ALL
    assert report.skipped == {}
    assert (report.method, report.gradient) == ("DRUM(width=6)", "straight-through")
    assert isinstance(model.out, MitchellLinear)
    assert isinstance(model.features[3], MitchellConv2d)
    assert model.head["again"] is model.head["shared"]
    assert not any(module.training for module in model.modules())
    after = model(IMAGES)
    assert not torch.equal(after, before)
    torch.testing.assert_close(after, before, rtol=0.1, atol=0.1)
    for name, parameter in model.named_parameters():
        assert parameter is parameters[name]
    assert list(model.state_dict()) == list(state)
    model.load_state_dict(state)
    assert restore(model) == ALL
    assert torch.equal(model(IMAGES), before)
    for name, module in model.named_modules():
        assert module is modules[name]
    assert vars(model.out).keys() == vars(nn.Linear(1, 1)).keys()
    assert restore(model) == ()


def test_another_method_and_back(model):
    before = model(IMAGES)
    approximate(model)
    first = model(IMAGES)
    report = approximate(model, method=DRUM(3))
    assert report.swapped == ALL
    assert not torch.equal(model(IMAGES), first)
    assert restore(model) == ALL
    assert torch.equal(model(IMAGES), before)


def test_own_layers_stay(model):
    model.out = MitchellLinear(16, 3, method="realm")
    report = approximate(model, exclude=["out"])
    assert report.skipped == {"out": "excluded"}
    assert restore(model) == ALL[:-1]
    assert isinstance(model.out, MitchellLinear)
    assert model.out.method == "realm"


def test_the_model_itself():
    layer = nn.Linear(4, 2)
    assert approximate(layer).swapped == ("",)
    assert "(the model itself)" in str(approximate(layer))
    assert isinstance(layer, MitchellLinear)
    assert restore(layer) == ("",)


def test_hooks_copies_and_pickles(model):
    seen = []
    model.out.register_forward_hook(lambda module, args, out: seen.append(type(module).__name__))
    model(IMAGES)
    approximate(model)
    expected = model(IMAGES)
    assert seen == ["Linear", "MitchellLinear"]
    model.out._forward_hooks.clear()
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(IMAGES), expected)
        assert restore(other) == ALL
        assert torch.equal(model(IMAGES), expected)


@pytest.mark.parametrize(
    ("include", "exclude", "swapped"),
    [
        (["out"], [], ("out",)),
        (["head"], [], ("head.first", "head.again")),
        (["features.*"], [], ("features.0", "features.3")),
        (None, ["features", "head.*"], ("out",)),
        (["features", "out"], ["features.0"], ("features.3", "out")),
        ([""], ["out"], ALL[:-1]),
        ([], (), ()),
    ],
)
def test_names(model, include, exclude, swapped):
    report = approximate(model, include=include, exclude=exclude)
    assert report.swapped == swapped
    assert set(report.skipped) == set(ALL) - set(swapped)
    assert set(report.skipped.values()) <= {"excluded", "not included"}


def test_what_stays_and_why():
    model = nn.ModuleDict(
        {
            "transposed": nn.ConvTranspose2d(2, 2, 3),
            "one": nn.Conv1d(2, 2, 3),
            "three": nn.Conv3d(2, 2, 3),
            "recurrent": nn.LSTM(2, 2),
            "attention": nn.MultiheadAttention(4, 2),
            "bilinear": nn.Bilinear(2, 2, 2),
            "complex": nn.Linear(2, 2, dtype=torch.complex64),
            "lazy": nn.LazyLinear(2),
            "patched": nn.Linear(2, 2),
            "norm": nn.LayerNorm(2),
        }
    )
    model["patched"].forward = model["patched"].forward
    report = approximate(model)
    assert report.swapped == ()
    assert report.skipped == {
        "transposed": "ConvTranspose2d has no approximate form",
        "one": "Conv1d has no approximate form",
        "three": "Conv3d has no approximate form",
        "recurrent": "LSTM has no approximate form",
        "attention": "MultiheadAttention reads its weights without calling layers",
        "attention.out_proj": (
            "NonDynamicallyQuantizableLinear is a subclass of Linear with ways of its own"
        ),
        "bilinear": "Bilinear has no approximate form",
        "complex": "its weight has dtype torch.complex64",
        "lazy": "LazyLinear is a subclass of Linear with ways of its own",
        "patched": "its forward was replaced",
    }
    assert "10 layers stay exact" in str(report)


def test_the_fast_path_of_an_encoder_is_closed():
    """In evaluation, torch's encoder layer reads the weights of its linear layers directly."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    x = torch.randn(2, 5, 8)
    with torch.no_grad():
        before = layer(x)
        report = approximate(layer, method=DRUM(2))
        assert report.swapped == ("linear1", "linear2")
        approximated = layer(x)
        assert not torch.allclose(approximated, before, atol=1e-4)
        restore(layer)
        assert torch.equal(layer(x), before)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.parametrize("exclude", [[], ["layers.0"], ["layers.1"]], ids=str)
def test_an_encoder_takes_padded_batches(exclude):
    """In evaluation, torch's encoder hands its layers nested tensors instead of padded ones."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2).eval()
    x, padding = torch.randn(2, 5, 8), torch.arange(5) >= torch.tensor([[5], [3]])

    def run():
        with torch.no_grad():
            return encoder(x, src_key_padding_mask=padding)

    before = run()
    approximate(encoder, method=DRUM(2), exclude=exclude)
    kept = ~padding
    assert not torch.allclose(run()[kept], before[kept], atol=1e-4)
    restore(encoder)
    assert torch.equal(run(), before)
    assert encoder.use_nested_tensor


def test_a_layer_with_a_hooked_weight():
    """Pruning sets the weight before each call, and leaves the class alone."""
    model = nn.Sequential(nn.Linear(4, 3))
    prune.l1_unstructured(model[0], "weight", 0.5)
    before = model(IMAGES[:, 0, 0, :4])
    assert approximate(model, method=DRUM(3)).swapped == ("0",)
    assert not torch.equal(model(IMAGES[:, 0, 0, :4]), before)
    restore(model)
    assert torch.equal(model(IMAGES[:, 0, 0, :4]), before)


def test_parametrizations():
    """They give a layer a class of its own: before, it stays exact; after, it cannot go back."""
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    parametrizations.weight_norm(model[0])
    report = approximate(model)
    assert report.swapped == ("1",)
    assert report.skipped == {
        "0": "ParametrizedLinear is a subclass of Linear with ways of its own"
    }
    parametrizations.weight_norm(model[1])
    assert approximate(model, method="drum").skipped["1"] == (
        "ParametrizedMitchellLinear is a subclass of MitchellLinear with ways of its own"
    )
    message = (
        r"^restore: `model` must have its layers as approximate left them \(take off what was put "
        r"on since\), got a ParametrizedMitchellLinear at '1'$"
    )
    with pytest.raises(ValueError, match=message):
        restore(model)
    parametrize.remove_parametrizations(model[1], "weight")
    assert restore(model) == ("1",)
    assert type(model[1]) is nn.Linear


def test_tied_weights():
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    model = nn.Sequential(first, second)
    assert approximate(model, gradient="straight-through").swapped == ("0", "1")
    model(torch.ones(4)).sum().backward()
    assert first.weight is second.weight
    assert first.weight.grad is not None


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_quantized_layers_stay():
    quantize = torch.ao.quantization.quantize_dynamic
    model = quantize(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), {nn.Linear})
    before = model(torch.ones(2, 4))
    report = approximate(model)
    assert report.swapped == ()
    assert report.skipped == {"0": "Linear has no approximate form"}
    assert torch.equal(model(torch.ones(2, 4)), before)


def test_a_lazy_layer_can_be_swapped_once_it_has_its_size():
    model = nn.Sequential(nn.LazyLinear(3))
    assert approximate(model).swapped == ()
    model(torch.ones(2, 4))
    assert approximate(model).swapped == ("0",)
    assert model(torch.ones(2, 4)).shape == (2, 3)


@pytest.mark.parametrize("gradient", ["mimic", "exact", "straight-through"])
def test_training(model, gradient):
    model.train()
    approximate(model, gradient=gradient)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    losses = []
    for _ in range(10):
        loss = functional.cross_entropy(model(IMAGES), LABELS)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_compiled(model):
    torch._dynamo.reset()
    approximate(model, method=DRUM(4), gradient="straight-through")
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(IMAGES), model(IMAGES))
    # Another method is another graph.
    approximate(model, method="realm", gradient="straight-through")
    assert torch.equal(compiled(IMAGES), model(IMAGES))


TABLE = Table(np.zeros((256, 256), np.uint8))
REFUSED = {
    "no model": (
        (nn.Linear,),
        {},
        TypeError,
        "`model` must be a torch.nn.Module, got the class Lin",
    ),
    "method": ((), {"method": "x"}, ValueError, "`method` must be a Method object or one of"),
    "gradient": ((), {"gradient": "x"}, ValueError, "`gradient` must be one of"),
    "derivative": (
        (),
        {"method": "drum", "gradient": "exact"},
        ValueError,
        "`gradient` must be 'mimic' or 'straight-through' for a method that drops bits",
    ),
    "integers only": (
        (),
        {"method": "operand-decomposition"},
        TypeError,
        "`method` must take layer 'features.0' of dtype torch.float32, got OperandDecomposition()",
    ),
    "table of bytes": (
        (),
        {"method": TABLE},
        TypeError,
        "`method` must take layer 'features.0' of",
    ),
    "unknown include": (
        (),
        {"include": ["features.9"]},
        ValueError,
        "`include` must hold names of modules of the model, got 'features.9'",
    ),
    "unknown exclude": (
        (),
        {"exclude": ["heads.*"]},
        ValueError,
        "`exclude` must hold names of modules of the model, got 'heads.*'",
    ),
    "include a string": (
        (),
        {"include": "out"},
        TypeError,
        "`include` must be a sequence of module names, got str",
    ),
    "exclude a module": (
        (),
        {"exclude": [nn.ReLU()]},
        TypeError,
        "`exclude` must hold module names, got ReLU",
    ),
    "include what cannot be": (
        (),
        {"include": ["features.1"]},
        ValueError,
        "`include` must hold names of nn.Linear or nn.Conv2d layers or of modules with some, got "
        "'features.1' (no such layer in BatchNorm2d)",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(model, name):
    arguments, options, error, message = REFUSED[name]
    with pytest.raises(error) as caught:
        approximate(*(arguments or (model,)), **options)
    assert str(caught.value).startswith(f"approximate: {message}")
    assert "\n" not in str(caught.value)
    assert type(model.out) is nn.Linear


def test_restore_refuses_what_is_no_model():
    with pytest.raises(TypeError, match=r"^restore: `model` must be a torch.nn.Module, got int"):
        restore(3)
