// What the threads of a warp do together, and the copies that a thread does not wait for at once.
#include <cstring>
#include <deque>
#include <map>

#include "emulator.hpp"

namespace cuda_emulator {
namespace {

// What a group has given at its meetings: one is read while the next is under way.
struct Group {
    std::vector<unsigned char> values[2];
    std::vector<unsigned> meetings;  // of each member
};
std::map<int, Group> groups;

struct Copy {
    void* target;
    const void* source;
    bool valid;
};
// Of a thread: the groups of copies on their way, the last one not committed.
std::map<unsigned, std::deque<std::vector<Copy>>> copies;

constexpr int kGroupMeetings = 1 << 16;  // meeting 0 is the block's, some more are barriers'

}  // namespace

void forget_block() {
    groups.clear();
    copies.clear();
}

const void* exchange(unsigned count, const void* value, size_t bytes, const char* file, int line) {
    const unsigned thread = running_thread();
    if (block_threads() % count != 0)
        end_kernel("is in a block that no groups of " + std::to_string(count) + " threads fill");
    const int id = kGroupMeetings * static_cast<int>(count) + static_cast<int>(thread / count);
    Group& group = groups[id];
    group.meetings.resize(count);
    const unsigned member = thread % count;
    std::vector<unsigned char>& values = group.values[group.meetings[member]++ % 2];
    if (values.size() < count * bytes) values.resize(count * bytes);
    std::memcpy(values.data() + member * bytes, value, bytes);
    meet(id, count, file, line);
    return values.data();
}

void begin_copy(void* target, const void* source, bool valid) {
    matrix_row(target);
    if (reinterpret_cast<uintptr_t>(source) % 16 != 0)
        end_kernel("copies from an address that is no multiple of 16");
    std::deque<std::vector<Copy>>& own = copies[running_thread()];
    if (own.empty()) own.emplace_back();
    own.back().push_back({target, source, valid});
}

void commit_copies() {
    std::deque<std::vector<Copy>>& own = copies[running_thread()];
    if (own.empty()) own.emplace_back();
    own.emplace_back();
}

void wait_for_copies(size_t pending) {
    std::deque<std::vector<Copy>>& own = copies[running_thread()];
    while (own.size() > pending + 1) {
        for (const Copy& copy : own.front()) {
            if (copy.valid) {
                std::memcpy(copy.target, copy.source, 16);
            } else {
                std::memset(copy.target, 0, 16);
            }
        }
        own.pop_front();
    }
}

void end_copies() {
    const auto own = copies.find(running_thread());
    if (own == copies.end()) return;
    for (const std::vector<Copy>& group : own->second) {
        if (!group.empty()) end_kernel("ends with copies that nobody has waited for");
    }
    copies.erase(own);
}

void matrix_row(const void* row) {
    if (reinterpret_cast<uintptr_t>(row) % 16 != 0)
        end_kernel("names 16 bytes of shared memory at an address that is no multiple of 16");
}

}  // namespace cuda_emulator
