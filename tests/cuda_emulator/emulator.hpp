// What the parts of the emulator know of each other, and what tests ask of it.
//
// It notices what a device would not say: barriers that not all threads of a block reach, races
// that the order of threads makes visible (each launch has another, by a seed), uninitialised
// memory (filled with ones, which are NaNs), accesses outside of allocations, to another device's,
// to the host's memory and by the host to a device's, launches beyond the limits. What breaks a
// rule is a Fault that names the kernel, the block and the thread.
#pragma once

#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "cuda_runtime.h"

namespace cuda_emulator {

inline constexpr int kDevices = 2;
inline constexpr unsigned char kUninitialised = 0xff;

class Fault : public std::runtime_error {
public:
    explicit Fault(const std::string& message) : std::runtime_error("emulator: " + message) {}
};

struct Launch {
    const char* function;  // on whose behalf
    const char* type;      // of the kernel, mangled
    const void* kernel;
    dim3 grid;
    dim3 block;
    size_t shared_bytes;
    int device;
    cudaStream_t stream;
};
// "matmul's kernel void (*)(float const*, ...)"
std::string text(const Launch& launch);
std::string text(dim3 index);

using Thread = std::function<void()>;

// Runs the launch, or keeps it where its stream is being captured.
cudaError_t launch(const Launch& launch, Thread thread);
// Refuses arguments that point to memory which the kernel's device does not have. Structures are
// searched for such addresses, so they have to be initialised as a whole.
void check_argument(const Launch& launch, int index, const void* value, size_t bytes);

// --- grid.cpp: the execution of a grid
// ---------------------------------------------------------------

void run_grid(const Launch& launch, const Thread& thread, uint64_t seed);
unsigned char* shared_memory();
size_t shared_bytes();
// Depends on the launch's seed.
uint64_t random_below(uint64_t limit);
// Whether this OS thread runs a kernel's thread now.
bool in_kernel();
// Never comes back: the running kernel ends with a Fault.
[[noreturn]] void end_kernel(const std::string& reason);
// The number of the running thread in its block.
unsigned running_thread();
unsigned block_threads();
// The running thread waits until `members` threads wait at meeting `id`; all of them at one place.
void meet(int id, unsigned members, const char* file, int line);
// The running thread waits until `holds`, which others' accesses make true.
void wait_until(std::function<bool()> holds, const char* file, int line);

// --- warps.cpp: what the threads of a block do together (core/ptx.cuh)
// ------------------------------------------------------------------

// The running thread waits for all `count` threads of its group of so many neighbours, which divide
// the block. Returns what each of them gave, in their order, until the group meets twice more.
const void* exchange(unsigned count, const void* value, size_t bytes, const char* file, int line);

// Before a grid: nobody has met, and nothing is on its way.
void forget_block();

// Copies of 16 bytes to shared memory, or of zeros, which arrive when their thread waits for them.
void begin_copy(void* target, const void* source, bool valid);
void commit_copies();
void wait_for_copies(size_t pending);
// The running thread ends. Refuses copies that are on their way: on a device they arrive whenever
// they do, on top of what else lies there by then.
void end_copies();
// Refuses what is no row of a matrix: 16 bytes at a multiple of 16.
void matrix_row(const void* row);

// --- memory.cpp: the devices' memory
// ------------------------------------------------------------------

// Nobody may touch a device's memory but its kernels, and who holds one of these.
class Exposed {
public:
    explicit Exposed(int device);
    ~Exposed();
    Exposed(const Exposed&) = delete;
    Exposed& operator=(const Exposed&) = delete;

private:
    int device_;
};

// Null where the device has no more. Where only addresses are reserved, any size will do.
void* allocate(int device, size_t bytes, bool reserve = false);
// False where there is no such allocation.
bool release(void* pointer);
// The device whose memory all these bytes are, or -1.
int device_of(const void* pointer, size_t bytes);
// Bytes that are allocated.
size_t used_bytes(int device);
// Throws a Fault where the launch that ran wrote around an allocation.
void check_surroundings(const Launch& launch);
// "device 1's memory, 4 bytes behind an allocation of 1024 bytes"
std::string describe(const void* address);

// --- faults.cpp
// ---------------------------------------------------------------------------------------

// Makes faults of wrong accesses in kernels, and says what the host touched before it ends.
void catch_wrong_accesses();

// --- runtime.cpp: what tests set and see
// --------------------------------------------------------------

void set_seed(uint64_t seed);
// The next so many allocations that the runtime is asked for fail.
void fail_allocations(int count);
// Launches are checked and listed, but do not run.
void set_dry(bool dry);
// Launches since the last call.
std::vector<Launch> take_launches();

void begin_capture(cudaStream_t stream);
// Gives the number of the graph.
int end_capture();
void replay(int graph);

}  // namespace cuda_emulator
