// The devices' memory: every allocation in pages of its own that nobody may touch except while a
// kernel of its device runs. The bytes around it show who wrote there.
#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <iterator>
#include <map>
#include <mutex>

#include "emulator.hpp"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace cuda_emulator {
namespace {

constexpr size_t kPage = 4096;
constexpr size_t kAlignment = 256;
constexpr size_t kDeviceBytes = size_t{1} << 30;
constexpr unsigned char kUntouched = 0xa7;

// A page that stays closed, the surroundings before, the data, the surroundings behind, and again
// such a page.
struct Allocation {
    int device;
    char* pages;
    size_t page_bytes;
    char* data;
    size_t bytes;
    bool reserved;  // addresses without memory

    char* end() const { return data + bytes; }
    char* pages_end() const { return pages + page_bytes; }
    void protect(bool open) const {
        if (!reserved) mprotect(pages, page_bytes, open ? PROT_READ | PROT_WRITE : PROT_NONE);
    }
};

// Calls of the runtime come from several threads.
std::recursive_mutex mutex;
std::map<uintptr_t, Allocation> allocations;  // by the address of the first page
int exposures[kDevices];

constexpr size_t round_up(size_t value, size_t unit) { return (value + unit - 1) / unit * unit; }

// The allocation whose pages, with the closed ones around them, hold an address.
const Allocation* find(const void* pointer) {
    const auto address = reinterpret_cast<uintptr_t>(pointer);
    const auto after = allocations.upper_bound(address + kPage);
    if (after == allocations.begin()) return nullptr;
    const Allocation& candidate = std::prev(after)->second;
    return address < reinterpret_cast<uintptr_t>(candidate.pages_end()) + kPage ? &candidate
                                                                                : nullptr;
}

// AddressSanitizer itself refuses accesses to what lies around an allocation.
void close_surroundings(const Allocation& allocation) {
    std::fill(allocation.pages, allocation.data, kUntouched);
    std::fill(allocation.end(), allocation.pages_end(), kUntouched);
#if defined(__SANITIZE_ADDRESS__)
    __asan_poison_memory_region(allocation.pages,
                                static_cast<size_t>(allocation.data - allocation.pages));
    __asan_poison_memory_region(allocation.end(),
                                static_cast<size_t>(allocation.pages_end() - allocation.end()));
#endif
}
bool are_surroundings_untouched([[maybe_unused]] const Allocation& allocation) {
#if defined(__SANITIZE_ADDRESS__)
    return true;
#else
    const auto untouched = [](char byte) { return static_cast<unsigned char>(byte) == kUntouched; };
    return std::all_of(allocation.pages, allocation.data, untouched) &&
           std::all_of(allocation.end(), allocation.pages_end(), untouched);
#endif
}

void expose(int device, bool open) {
    for (const auto& [address, allocation] : allocations) {
        if (allocation.device == device) allocation.protect(open);
    }
}

}  // namespace

Exposed::Exposed(int device) : device_(device) {
    mutex.lock();
    if (exposures[device_]++ == 0) expose(device_, true);
}
Exposed::~Exposed() {
    if (--exposures[device_] == 0) expose(device_, false);
    mutex.unlock();
}

void* allocate(int device, size_t bytes, bool reserve) {
    catch_wrong_accesses();
    const std::lock_guard lock(mutex);
    if (!reserve && bytes > kDeviceBytes - used_bytes(device)) return nullptr;
    const size_t room = round_up(bytes, kAlignment);
    const size_t page_bytes = round_up(std::max<size_t>(room, 1), kPage);
    void* const memory = mmap(nullptr, page_bytes + 2 * kPage, PROT_NONE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return nullptr;
    char* const pages = static_cast<char*>(memory) + kPage;
    const Allocation allocation{device, pages,  page_bytes, pages + (page_bytes - room),
                                bytes,  reserve};
    if (!reserve) {
        allocation.protect(true);
        std::fill(allocation.data, allocation.end(), static_cast<char>(kUninitialised));
        close_surroundings(allocation);
        if (exposures[device] == 0) allocation.protect(false);
    }
    allocations[reinterpret_cast<uintptr_t>(pages)] = allocation;
    return allocation.data;
}

bool release(void* pointer) {
    const std::lock_guard lock(mutex);
    const Allocation* const found = find(pointer);
    if (found == nullptr || found->data != pointer) return false;
    const Allocation allocation = *found;
    allocations.erase(reinterpret_cast<uintptr_t>(allocation.pages));
#if defined(__SANITIZE_ADDRESS__)
    if (!allocation.reserved)
        __asan_unpoison_memory_region(allocation.pages, allocation.page_bytes);
#endif
    munmap(allocation.pages - kPage, allocation.page_bytes + 2 * kPage);
    return true;
}

int device_of(const void* pointer, size_t bytes) {
    const std::lock_guard lock(mutex);
    const Allocation* const found = find(pointer);
    const char* const data = static_cast<const char*>(pointer);
    // One past the end is still an address of the allocation.
    const bool inside = found != nullptr && data >= found->data && data + bytes <= found->end();
    return inside ? found->device : -1;
}

size_t used_bytes(int device) {
    const std::lock_guard lock(mutex);
    size_t bytes = 0;
    for (const auto& [address, allocation] : allocations) {
        if (allocation.device == device && !allocation.reserved) bytes += allocation.bytes;
    }
    return bytes;
}

void check_surroundings(const Launch& launch) {
    const std::lock_guard lock(mutex);
    for (const auto& [address, allocation] : allocations) {
        if (exposures[allocation.device] == 0 || allocation.reserved) continue;
        if (are_surroundings_untouched(allocation)) continue;
        close_surroundings(allocation);
        throw Fault(text(launch) + ": wrote around an allocation of " +
                    std::to_string(allocation.bytes) + " bytes");
    }
}

std::string describe(const void* address) {
    const std::lock_guard lock(mutex);
    const Allocation* const found = find(address);
    const char* const byte = static_cast<const char*>(address);
    if (found == nullptr) return "memory that is nobody's";
    const std::string whose = "device " + std::to_string(found->device) + "'s memory";
    const std::string size = " an allocation of " + std::to_string(found->bytes) + " bytes";
    if (byte < found->data)
        return whose + ", " + std::to_string(found->data - byte) + " bytes before" + size;
    if (byte >= found->end())
        return whose + ", " + std::to_string(byte - found->end()) + " bytes behind" + size;
    return whose;
}

}  // namespace cuda_emulator
