// Products of warpgroups, and the registers that they move among themselves: see core/hopper.cuh.
#include <cmath>
#include <cstring>
#include <limits>
#include <map>

#include "hopper.hpp"

namespace cuda_emulator {
namespace {

constexpr unsigned kWarpThreads = 32;
constexpr int kDepth = 16;

struct Registers {
    const char* first;
    const char* last;
    bool hold(const void* pointer) const {
        const char* const byte = static_cast<const char*>(pointer);
        return byte >= first && byte < last;
    }
};

// Of a thread.
struct Running {
    std::vector<Registers> begun;
    std::vector<std::vector<Product>> groups{1};  // the last one not committed
    // The sums of products that run; in the thread's registers are NaNs.
    std::map<float*, std::vector<float>> sums;
};
std::map<unsigned, Running> running;

std::map<unsigned, int> registers;  // of a thread of each warpgroup

Running& own() { return running[running_thread()]; }

uint32_t start_of(uint64_t matrix) { return (matrix & 0x3fff) * 16; }
uint32_t leading_of(uint64_t matrix) { return (matrix >> 16 & 0x3fff) * 16; }
uint32_t stride_of(uint64_t matrix) { return (matrix >> 32 & 0x3fff) * 16; }

// The element at this place of the depth and across it, as core/hopper.cuh says that the hardware
// finds it.
uint16_t element(uint64_t matrix, bool across, int place, int depth) {
    const auto outer = static_cast<uint32_t>(across ? depth : place);
    const auto inner = static_cast<uint32_t>(across ? place : depth);
    uint32_t address = start_of(matrix) + outer / 8 * stride_of(matrix) + outer % 8 * 128 +
                       inner % kBoxColumns * kElementBytes;
    if (across) address += inner / kBoxColumns * leading_of(matrix);
    address ^= (address >> 7 & 7) << 4;
    uint16_t bits;
    std::memcpy(&bits, shared_at(address), sizeof(bits));
    return bits;
}

// Products are exact, and a sum of sixteen with what is there rounds about once.
void compute(const Product& product, std::vector<float>& sums) {
    const int thread = static_cast<int>(running_thread()) % kWarpgroup;
    const int lane = thread % static_cast<int>(kWarpThreads);
    const int row = thread / static_cast<int>(kWarpThreads) * 16 + lane / 4;
    float a[2][kDepth];
    for (int half = 0; half < 2; ++half) {
        for (int k = 0; k < kDepth; ++k) {
            const uint32_t pair = product.a[k % 8 / 2][half + k / 8 * 2];
            a[half][k] = product.widen(product.from_registers
                                           ? static_cast<uint16_t>(pair >> (16 * (k % 2)))
                                           : element(product.a_matrix, false, row + 8 * half, k));
        }
    }
    for (int block = 0; block < product.blocks; ++block) {
        for (int side = 0; side < 2; ++side) {
            const int column = 8 * block + lane % 4 * 2 + side;
            double totals[2];
            for (int half = 0; half < 2; ++half)
                totals[half] = product.add ? sums[4 * block + 2 * half + side] : 0;
            for (int k = 0; k < kDepth; ++k) {
                const double b =
                    product.widen(element(product.b_matrix, product.from_registers, column, k));
                for (int half = 0; half < 2; ++half) totals[half] += a[half][k] * b;
            }
            for (int half = 0; half < 2; ++half)
                sums[4 * block + 2 * half + side] = static_cast<float>(totals[half]);
        }
    }
}

void check_matrix(uint64_t matrix) {
    if (matrix >> 62 != 1) end_kernel("multiplies a matrix that is not swizzled by 128 bytes");
    if ((matrix >> 49 & 7) != 0 || stride_of(matrix) != 1024)
        end_kernel("multiplies a matrix whose rows are not 128 bytes long");
}

bool is_poison(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof(bits));
    return bits == 0xffffffff;
}

void poison(float* d, size_t count) { std::memset(d, 0xff, count * sizeof(float)); }

bool is_used(const Running& mine, const float* d) {
    for (const auto& group : mine.groups) {
        for (const Product& product : group) {
            if (product.d == d) return true;
        }
    }
    return false;
}

void give_back_ended(Running& mine) {
    for (auto at = mine.sums.begin(); at != mine.sums.end();) {
        float* const d = at->first;
        if (is_used(mine, d)) {
            ++at;
            continue;
        }
        for (size_t i = 0; i < at->second.size(); ++i) {
            if (!is_poison(d[i])) end_kernel("wrote to sums of a product that was running");
            d[i] = at->second[i];
        }
        std::erase_if(mine.begun, [d](const Registers& some) { return some.hold(d); });
        at = mine.sums.erase(at);
    }
}

}  // namespace

void forget_products() {
    running.clear();
    registers.clear();
}

bool are_products_running() {
    for (const auto& [thread, mine] : running) {
        if (!mine.sums.empty()) return true;
    }
    return false;
}

void begin_products(const void* some, size_t bytes) {
    const char* const first = static_cast<const char*>(some);
    own().begun.push_back({first, first + bytes});
}

void start_product(Product product, const uint32_t* a, const char* file, int line) {
    struct Operands {
        uint32_t a[4];
        uint64_t a_matrix;
        uint64_t b_matrix;
    };
    Operands given{{}, product.a_matrix, product.b_matrix};
    if (product.from_registers) std::memcpy(given.a, a, sizeof(given.a));
    const auto* const all =
        static_cast<const Operands*>(exchange(kWarpgroup, &given, sizeof(given), file, line));
    for (int thread = 0; thread < kWarpgroup; ++thread) {
        if (all[thread].a_matrix != given.a_matrix || all[thread].b_matrix != given.b_matrix)
            end_kernel("multiplies other matrices than its warpgroup does");
    }
    check_matrix(product.b_matrix);
    if (!product.from_registers) check_matrix(product.a_matrix);
    const unsigned first = running_thread() % kWarpgroup / 4 * 4;
    for (unsigned i = 0; i < 4; ++i)
        std::memcpy(product.a[i], all[first + i].a, sizeof(product.a[i]));

    Running& mine = own();
    const auto is_begun = [&](const void* pointer) {
        for (const Registers& some : mine.begun) {
            if (some.hold(pointer)) return true;
        }
        return false;
    };
    if (!is_begun(product.d) || (product.from_registers && !is_begun(a)))
        end_kernel("multiplies registers without begin_products");
    const size_t count = static_cast<size_t>(product.blocks) * 4;
    if (!mine.sums.contains(product.d)) {
        mine.sums[product.d].assign(product.d, product.d + count);
        poison(product.d, count);
    }
    mine.groups.back().push_back(product);
}

void commit_products() { own().groups.emplace_back(); }

void wait_for_products(size_t pending) {
    Running& mine = own();
    while (mine.groups.size() > pending + 1) {
        for (const Product& product : mine.groups.front()) compute(product, mine.sums[product.d]);
        mine.groups.erase(mine.groups.begin());
    }
    give_back_ended(mine);
    // The lanes of a warp go on together.
    const char nothing = 0;
    exchange(kWarpThreads, &nothing, sizeof(nothing), __FILE__, __LINE__);
}

void check_ended(const void* some) {
    if (own().sums.contains(static_cast<float*>(const_cast<void*>(some))))
        end_kernel("names sums of a product that may be running");
}

void set_registers(int count, bool takes, const char* file, int line) {
    constexpr int kAll = 65536;
    exchange(kWarpgroup, &count, sizeof(count), file, line);
    if (count % 8 != 0 || count < 24 || count > 256)
        end_kernel("asks for " + std::to_string(count) + " registers");
    const int threads = static_cast<int>(block_threads());
    const unsigned group = running_thread() / kWarpgroup;
    const auto held = [=](unsigned other) {
        const auto found = registers.find(other);
        return found == registers.end() ? kAll / threads / 8 * 8 : found->second;
    };
    if (takes ? count < held(group) : count > held(group))
        end_kernel(takes ? "takes fewer registers than it has" : "releases what it does not have");
    const auto is_there = [=] {
        int all = count;
        for (unsigned other = 0; other < static_cast<unsigned>(threads / kWarpgroup); ++other)
            all += other == group ? 0 : held(other);
        return all * kWarpgroup <= kAll;
    };
    wait_until(is_there, file, line);
    registers[group] = count;
}

}  // namespace cuda_emulator
