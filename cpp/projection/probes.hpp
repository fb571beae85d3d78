// Lookup tables of locality-sensitive hashing: which buckets to look into, and the exact distances
// of what lies there.
#pragma once

#include <cstdint>

#include "core/tensor.hpp"

namespace slipstick::cpu::projection {

// The query-directed sequence of Lv, Josephson, Wang, Charikar and Li 2007. penalties (rows,
// hashes, alternatives) float64, increasing along the last axis from 0: what a hash loses by its
// first, second, ... alternative. ranks (rows, probes, hashes) uint8 receives, a row, the `probes`
// choices of one alternative each whose sums of penalties are smallest, in increasing order. There
// must be as many choices: probes <= alternatives ** hashes, and alternatives <= 256. Both
// contiguous.
void probe_ranks(const ConstTensor& penalties, const Tensor& ranks);

enum class Metric : int { kCosine, kEuclidean };

// Where the candidates of a query are: entries [begin, end) of the row of its table.
struct Buckets {
    const uint32_t* rows;  // (tables, n): numbers of vectors, ordered by their key
    const int64_t* begin;  // (queries, tables, probes)
    const int64_t* end;
    int64_t tables;
    int64_t probes;
};

// The k nearest to each query among its candidates, each counted once, by (distance, number);
// infinity and -1 stand where there are fewer. Distances are sums of eight float64 chains, the same
// at every level. All arrays contiguous: vectors (n, d) and queries (queries, d) float32, distances
// and indices (queries, k). Returns false where a number is no vector's.
bool rank_candidates(const ConstTensor& vectors, const ConstTensor& queries, const Buckets& buckets,
                     Metric metric, int64_t k, double* distances, int64_t* indices);

}  // namespace slipstick::cpu::projection
