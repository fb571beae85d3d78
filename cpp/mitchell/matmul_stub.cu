#include "core/launch.cuh"
#include "mitchell/lookup.cuh"
#include "mitchell/geometry.hpp"
#include "mitchell/plan_rules.hpp"
namespace slipstick::cuda::mitchell {
namespace {
Access access_of(const void* d, int64_t lines, int64_t depth, int64_t line, int64_t dep, bool even){
  const bool al = reinterpret_cast<uintptr_t>(d) % 4 == 0 && even;
  if (dep == 1 && depth % 4 == 0 && line % 4 == 0 && al) return Access::kPackedDepth;
  if (line == 1 && lines % 4 == 0 && dep % 4 == 0 && al) return Access::kPackedLines;
  return dep == 1 || (line != 1 && dep < line) ? Access::kDepth : Access::kLines;
}
}
void matmul(const Context& context, const ConstTensor& a, const ConstTensor& b, const Method& method, double, const Tensor& out, Path) {
  const DeviceGuard guard(context, "matmul");
  const Parameters p = device_parameters(context, "matmul", a.dtype, method);
  LookupProblem q{};
  int64_t rows = 1, cols = 1, rs = 0, cs = 0;
  int axis = out.rank;
  if (b.rank >= 2) { --axis; cols = out.shape[axis]; cs = out.strides[axis]; }
  if (a.rank >= 2) { --axis; rows = out.shape[axis]; rs = out.strides[axis]; }
  q.depth = a.shape[a.rank - 1];
  const int br = axis;
  for (int i = 0; i < br; ++i) {
    auto st = [&](const ConstTensor& t) -> int64_t { const int own = i - (br - std::max(0, t.rank - 2)); return own < 0 || t.shape[own] == 1 ? 0 : t.strides[own]; };
    q.batches.append(out.shape[i], st(a), st(b), out.strides[i]);
  }
  bool ea = true, eb = true;
  for (int i = 0; i < q.batches.rank; ++i) { ea &= q.batches.left[i] % 4 == 0; eb &= q.batches.right[i] % 4 == 0; }
  for (int i = 0; i < br; ++i) if (out.shape[i] == 0) return;
  q.left.lines = rows; q.right.lines = cols;
  q.left.operand.data = a.data; q.left.operand.depth = a.strides[a.rank - 1]; q.left.operand.line = a.rank >= 2 ? a.strides[a.rank - 2] : 0;
  q.right.operand.data = b.data; q.right.operand.depth = b.strides[b.rank >= 2 ? b.rank - 2 : 0]; q.right.operand.line = b.rank >= 2 ? b.strides[b.rank - 1] : 0;
  auto& l = q.left.operand; auto& r = q.right.operand;
  l.access = access_of(a.data, rows, q.depth, l.line, l.depth, ea);
  r.access = access_of(b.data, cols, q.depth, r.line, r.depth, eb);
  q.left.targets = {rs, 0, 0}; q.right.targets = {cs, 0, 0};
  q.out = out.as<uint32_t>();
  multiply_by_lookup(context, "matmul", a.dtype, method.description.kind, p, q);
}
namespace {
__global__ void taps_kernel(Tap* taps, int64_t depth, int64_t kh, int64_t kw, int64_t dy, int64_t dx, int64_t ch, int64_t row, int64_t col) {
  for (int64_t k = threadIdx.x; k < depth; k += blockDim.x) {
    const int64_t x = k % kw * dx, y = k / kw % kh * dy, c = k / (kw * kh);
    taps[k] = {c * ch + y * row + x * col, y, x};
  }
}
}
void conv2d(const Context& context, const ConstTensor& x, const ConstTensor& weight, const ConvOptions& options, const Method& method, const Tensor& out) {
  const DeviceGuard guard(context, "conv2d");
  const Parameters p = device_parameters(context, "conv2d", x.dtype, method);
  const auto g = slipstick::mitchell::geometry_of(x, weight, options);
  const int64_t* xs = x.strides + x.rank; const int64_t* os = out.strides + out.rank;
  LookupProblem q{};
  q.depth = g.depth();
  q.batches.append(g.images, x.rank == 4 ? xs[-4] : 0, 0, out.rank == 4 ? os[-4] : 0);
  q.batches.append(g.groups, g.channels * xs[-3], g.outputs * weight.strides[0], g.outputs * os[-3]);
  q.right.lines = g.outputs; q.left.lines = g.out_height * g.out_width;
  q.right.operand.data = weight.data; q.right.operand.line = weight.strides[0]; q.right.operand.depth = 1; q.right.operand.access = Access::kDepth;
  q.right.targets = {os[-3], 0, 0};
  q.left.targets = {os[-1], g.out_width, os[-2]};
  auto& o = q.left.operand;
  o.data = x.data; o.access = Access::kGathered;
  Tap* taps = context.memory->allocate_array<Tap>(q.depth);
  launch(context, "conv2d", taps_kernel, dim3(1), dim3(64), 0, taps, q.depth, g.kernel_height, g.kernel_width, g.dilation[0], g.dilation[1], xs[-3], xs[-2], xs[-1]);
  o.taps = taps; o.width = g.out_width;
  for (int i = 0; i < 2; ++i) { o.stride[i] = g.stride[i]; o.origin[i] = -g.padding[i]; }
  o.size[0] = g.height; o.size[1] = g.width; o.step[0] = xs[-2]; o.step[1] = xs[-1];
  q.out = out.as<uint32_t>();
  multiply_by_lookup(context, "conv2d", x.dtype, method.description.kind, p, q);
}
}
