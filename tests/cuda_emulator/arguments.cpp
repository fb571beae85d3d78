// What a kernel is handed: a device would find out at its first access, or not at all.
#include <sys/mman.h>

#include <cstring>

#include "emulator.hpp"

namespace cuda_emulator {
namespace {

constexpr uintptr_t kPage = 4096;

// Whether a word is the address of something of this process. Libraries, stacks and the heap lie
// above 2^45 on Linux; sizes and pairs of small numbers below, where AddressSanitizer has its own.
bool is_address(uintptr_t word) {
    unsigned char resident = 0;
    return word >= uintptr_t{1} << 45 && word < uintptr_t{1} << 48 &&
           mincore(reinterpret_cast<void*>(word / kPage * kPage), 1, &resident) == 0;
}

}  // namespace

void check_argument(const Launch& launch, int index, const void* value, size_t bytes) {
    for (size_t at = 0; at + sizeof(uintptr_t) <= bytes; at += sizeof(uintptr_t)) {
        uintptr_t word = 0;
        std::memcpy(&word, static_cast<const char*>(value) + at, sizeof(word));
        if (!is_address(word)) continue;
        const int device = device_of(reinterpret_cast<const void*>(word), 0);
        if (device == launch.device) continue;
        throw Fault(text(launch) + ": argument " + std::to_string(index) + " has, at byte " +
                    std::to_string(at) + ", an address of " +
                    (device < 0 ? std::string("the host's memory, or was not initialised")
                                : "device " + std::to_string(device) + "'s memory, not device " +
                                      std::to_string(launch.device) + "'s"));
    }
}

}  // namespace cuda_emulator
