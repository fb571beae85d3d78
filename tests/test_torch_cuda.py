"""Operators on CUDA devices: shapes anywhere, numbers where there is one."""

from __future__ import annotations

import subprocess
import sys
from functools import partial

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402

from slipstick.torch import (  # noqa: E402
    SSMaxScale,
    approximate,
    attention,
    mitchell_conv2d,
    mitchell_matmul,
    project,
)

has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key


@pytest.mark.parametrize("name", ["mitchell_matmul", "mitchell_conv2d", "attention", "project"])
def test_operators_and_their_gradients_are_registered(name):
    assert has_kernel(f"slipstick::{name}", "CUDA")
    assert has_kernel(f"slipstick::{name}", "AutocastCUDA")
    gradient = "back_project" if name == "project" else f"{name}_backward"
    assert has_kernel(f"slipstick::{gradient}", "CUDA")


def test_fake_tensors_have_shapes_and_devices():
    with FakeTensorMode():
        a, b = (torch.empty(shape, device="cuda") for shape in ((3, 4, 5), (5, 6)))
        out = mitchell_matmul(a, b, method="drum")
        assert (out.shape, out.device.type) == ((3, 4, 6), "cuda")
        images, weight = (
            torch.empty(shape, device="cuda") for shape in ((2, 3, 8, 8), (4, 3, 3, 3))
        )
        out = mitchell_conv2d(images, weight)
        assert (out.shape, out.device.type) == ((2, 4, 6, 6), "cuda")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int16])
def test_fake_project(dtype):
    with FakeTensorMode():
        x = torch.empty(2, 3, 50, device="cuda", dtype=dtype)
        out = project(x, 16, kind="sjlt")
        wide = dtype if dtype.is_floating_point else torch.float64
        assert (out.shape, out.dtype, out.device.type) == ((2, 3, 16), wide, "cuda")
        back = torch.ops.slipstick.back_project(out, 50, "sjlt")
        assert (back.shape, back.dtype, back.device) == (x.shape, wide, out.device)


@pytest.mark.parametrize("lengths", [None, 7, [7, 3], "cpu", "cuda"])
def test_fake_attention(lengths):
    """Lengths may lie beside the tensors or on the CPU, where ints and lists go."""
    with FakeTensorMode():
        if isinstance(lengths, str):
            lengths = torch.full((2,), 7, device=lengths)
        query, key, value = (
            torch.empty(2, heads, length, 16, device="cuda")
            for heads, length in ((4, 5), (2, 7), (2, 7))
        )
        scale = SSMaxScale(0.2, heads=4, device="cuda").requires_grad_(False)
        learned = scale._lowered()
        options = {"scale": scale, "key_lengths": lengths}
        out, stats = attention(query, key, value, return_stats=True, **options)
        assert (out.shape, out.device.type) == ((2, 4, 5, 16), "cuda")
        assert {(x.shape, x.device.type) for x in stats} == {((2, 4, 5), "cuda")}
        rows = (out, query, key, value, out, *stats[:2], None, None)
        grads = torch.ops.slipstick.attention_backward(*rows, False, None, "learned", [], learned)
        for x, grad in zip((query, key, value, learned), grads, strict=True):
            assert (grad.shape, grad.device) == (x.shape, x.device)


def test_devices_are_not_mixed_and_others_have_no_kernel():
    with FakeTensorMode():
        a, b = torch.empty(4, 4, device="cuda"), torch.empty(4, 4)
        with pytest.raises(
            ValueError, match=r"^mitchell_matmul: `b` must be on device cuda:0 like `a`, got "
        ):
            mitchell_matmul(a, b)
        head, other = torch.empty(1, 1, 4, 4, device="cuda"), torch.empty(1, 1, 4, 4)
        with pytest.raises(ValueError, match=r"^attention: `key` must be on device cuda:0 like "):
            attention(head, other, head)
        for name in ("mask", "scale"):
            with pytest.raises(ValueError, match=rf"^attention: `{name}` must be on device cuda:0"):
                attention(head, head, head, **{name: other[0, 0]})
        elsewhere = torch.empty(4, 4, device="xpu")
        for name, call in (
            ("a", partial(mitchell_matmul, b=b)),
            ("x", partial(project, n_components=2)),
        ):
            with pytest.raises(
                ValueError,
                match=rf"`{name}` must be on the CPU or a CUDA device, which alone has a kernel",
            ):
                call(elsewhere)


def test_the_default_device_does_not_matter():
    """What the module makes for itself while it is imported is on the CPU."""
    program = """if True:
        import torch
        torch.set_default_device("meta")
        from slipstick import _arrays
        _arrays._PLACES["torch"] = lambda tensor: {"cpu": None}[tensor.device.type]
        import slipstick.torch
        query = torch.ones(1, 1, 4, 8, device="cpu")
        print(slipstick.torch.attention(query, query, query).device)
    """
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stdout == "cpu\n", run.stderr


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")
@pytest.mark.parametrize("gradient", ["mimic", "exact", "straight-through"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_and_gradients_have_the_cpus_bits(gradient, dtype):
    generator = torch.Generator().manual_seed(3)
    cpu = [torch.randn(shape, generator=generator).to(dtype) for shape in ((70, 300), (300, 41))]
    results = []
    for device in ("cpu", "cuda"):
        a, b = (x.to(device).requires_grad_() for x in cpu)
        out = mitchell_matmul(a, b, gradient=gradient)
        out.backward(torch.ones_like(out))
        results.append([x.detach().cpu() for x in (out, a.grad, b.grad)])
    for mine, theirs in zip(*results, strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("kind", ["rademacher", "gaussian", "srht", "sjlt"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_project_and_its_gradient_have_the_cpus_bits(dtype, kind, compiled):
    generator = torch.Generator().manual_seed(3)
    cpu, grad = (torch.randn(5, 70, size, generator=generator).to(dtype) for size in (600, 41))
    call = torch.compile(project) if compiled else project
    results = []
    for device in ("cpu", "cuda"):
        x = cpu.to(device).requires_grad_()
        out = call(x, 41, kind=kind, seed=2**63)
        out.backward(grad.to(device))
        results.append([out.detach().cpu(), x.grad.cpu()])
    for mine, theirs in zip(*results, strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("heads", [None, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_and_its_gradients_are_the_cpus_without_a_wait(dtype, heads, compiled):
    """Sums of up to 300 numbers of about 1, in units of the dtype."""
    step = {torch.float32: 2.0**-18, torch.bfloat16: 2.0**-5}[dtype]
    generator = torch.Generator().manual_seed(3)
    shapes = ((2, 4, 70, 32), (2, 2, 300, 32), (2, 2, 300, 24), (2, 4, 70, 24))
    *cpu, grad = (torch.randn(shape, generator=generator).to(dtype) for shape in shapes)
    results = []
    for device in ("cpu", "cuda"):
        inputs = [x.to(device).requires_grad_() for x in cpu]
        scale = SSMaxScale(0.2, b=0.1, heads=heads, device=device)
        call = torch.compile(attention) if compiled else attention
        ready = grad.to(device)

        def run():
            out, stats = call(*inputs, scale=scale, causal=True, return_stats=True)  # noqa: B023
            wanted = [*inputs, scale.s, scale.b]  # noqa: B023
            weighted = (out * ready).sum() + stats.entropy.sum()  # noqa: B023
            return out, *stats, *torch.autograd.grad(weighted, wanted)

        run()
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("error")
        try:
            got = run()
        finally:
            if device == "cuda":
                torch.cuda.set_sync_debug_mode("default")
        results.append([x.detach().cpu().double() for x in got])
    for mine, theirs in zip(*results, strict=True):
        assert (mine - theirs).abs().max() <= step * theirs.abs().max()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")
def test_attention_under_vmap_and_autocast():
    query, key, value = torch.randn(3, 5, 2, 4, 40, 16, device="cuda")
    batches = torch.stack([attention(*x) for x in zip(query, key, value, strict=True)])
    assert torch.equal(torch.vmap(attention)(query, key, value), batches)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        assert attention(query[0], key[0], value[0]).dtype == torch.bfloat16


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")
def test_layers_on_a_device_are_swapped():
    layers = torch.nn.Sequential(torch.nn.Linear(4, 8, device="cuda"))
    x = torch.ones(2, 4)
    assert approximate(layers).swapped == ("0",)
    assert torch.equal(layers(x.to("cuda")).cpu(), layers.cpu()(x))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")
def test_autocast_casts():
    a = torch.ones(4, 4, device="cuda")
    with torch.autocast("cuda", dtype=torch.bfloat16):
        assert mitchell_matmul(a, a).dtype == torch.bfloat16
