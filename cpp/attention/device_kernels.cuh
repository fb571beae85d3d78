// The family's kernels on a device, as attention.cu chooses among them. The context's device is
// current.
#pragma once

#include "attention/problem.cuh"

namespace slipstick::cuda::attention {

// --- Forward ---

// float32 and float64 on the multiprocessors' own multiply-adds, every option.
void forward_simt(const Context& context, const Problem& problem);
// float16 and bfloat16 on tensor cores (mma.sync), every option.
void forward_mma(const Context& context, const Problem& problem);
// float16 and bfloat16 on a 9.0 device's tensor cores (wgmma), with operands brought by its copy
// engine, where a device of that compute capability has it and it serves the problem.
bool has_hopper_kernel(int major, int minor);
bool hopper_serves(const Context& context, const Problem& problem);
void forward_hopper(const Context& context, const Problem& problem);

// Up to kFewRows rows a key head: each block takes part of the keys, so that few sequences fill the
// device. How many parts depends on the number of keys alone. Of packed sequences those of more
// rows are left out (see Problem::few_queries), and all where bounds are not valid.
int64_t key_parts(const Problem& problem);
void few_rows_mma(const Context& context, const Problem& problem);   // float16, bfloat16
void few_rows_simt(const Context& context, const Problem& problem);  // float32, float64

// --- Backward ---

// What a row needs beyond its operands, in the accumulator's type: row r of key head h of sequence
// s is number (s kv_heads + h) rows + r, where rows = group * queries.
template <class Acc>
struct BackwardRows {
    Acc* factor;          // lambda
    Acc* lse;             // +inf where the row has no gradient, so that its weights are 0
    Acc* constant;        // D - dL + dH H
    Acc* grad_entropy;    // dH, or null
    double* grad_factor;  // the sum over keys of dR <q, k>: written by the kernel of dQ
};

struct BackwardProblem {
    Problem forward;  // `out` and statistics are read
    Operand out;
    Operand lse;
    Operand entropy;
    Operand grad_out;
    Operand grad_lse;      // data is null where there is none
    Operand grad_entropy;  // likewise
    Target grad_query;
    Target grad_key;
    Target grad_value;
};

// Fills the rows but for grad_factor.
void backward_rows(const Context& context, const BackwardProblem& problem,
                   const BackwardRows<float>& rows);
void backward_rows(const Context& context, const BackwardProblem& problem,
                   const BackwardRows<double>& rows);
// Gradients of query, key and value, and grad_factor of each row. One kernel goes over the keys of
// each tile of rows (dQ), another over the rows of each tile of keys (dK, dV): no sum is shared, so
// none depends on who comes first.
void backward_simt(const Context& context, const BackwardProblem& problem,
                   const BackwardRows<float>& rows);
void backward_simt(const Context& context, const BackwardProblem& problem,
                   const BackwardRows<double>& rows);
void backward_mma(const Context& context, const BackwardProblem& problem,
                  const BackwardRows<float>& rows);
// Adds up grad_factor in a fixed order: float64 (heads, 2) for laws affine in ln n, else of the
// dtype and shape of the given lambda.
void scale_gradient(const Context& context, const BackwardProblem& problem,
                    const double* grad_factor, const Target& target, const int64_t* target_shape,
                    Dtype target_dtype);

}  // namespace slipstick::cuda::attention
