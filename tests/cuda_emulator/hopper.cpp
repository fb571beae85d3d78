// Barriers that count bytes, and boxes of tensors: see core/hopper.cuh.
#include "hopper.hpp"

#include <map>
#include <set>

namespace cuda_emulator {
namespace {

constexpr uint32_t kFirstAddress = 1024 + 48;

struct State {
    uint32_t arrivals;  // of a phase
    uint32_t missing;
    int64_t bytes;  // announced and not yet there
    uint64_t phase;
};
std::map<const void*, State> barriers;

struct Meeting {
    int threads;
    std::set<unsigned> arrived;
    uint64_t number;
};
std::map<int, Meeting> meetings;

std::vector<Box> boxes;  // on their way

State& state_of(const void* barrier) {
    const auto found = barriers.find(barrier);
    if (found == barriers.end()) end_kernel("uses a barrier that nobody has made");
    return found->second;
}

void end_phase_if_complete(State& state) {
    if (state.missing != 0 || state.bytes != 0) return;
    ++state.phase;
    state.missing = state.arrivals;
}

bool is_inside(const Box& box, int axis, int64_t index) {
    return index >= 0 && index < box.map.lengths[axis];
}
const unsigned char* source_of(const Box& box, int64_t row, int64_t column) {
    const TensorMap& map = box.map;
    return map.data + row * map.steps[0] + box.first[2] * map.steps[1] +
           box.first[3] * map.steps[2] + column * kElementBytes;
}

void land(const Box& box) {
    unsigned char* const target = static_cast<unsigned char*>(box.target);
    const bool is_there = is_inside(box, 2, box.first[2]) && is_inside(box, 3, box.first[3]);
    for (int r = 0; r < box.map.box_rows; ++r) {
        for (int c = 0; c < kBoxColumns; ++c) {
            const uint32_t place = static_cast<uint32_t>(r * kBoxColumns + c) * kElementBytes;
            const int64_t row = box.first[1] + r;
            const int64_t column = box.first[0] + c;
            const bool inside = is_there && is_inside(box, 1, row) && is_inside(box, 0, column);
            unsigned char* const element = target + (place ^ (place >> 7 & 7) << 4);
            for (int byte = 0; byte < kElementBytes; ++byte)
                element[byte] = inside ? source_of(box, row, column)[byte] : 0;
        }
    }
    State& state = barriers.at(box.barrier);
    state.bytes -= box.map.box_rows * kBoxColumns * kElementBytes;
    end_phase_if_complete(state);
}

// Boxes for a barrier arrive in any order.
void land_one(const void* barrier) {
    std::vector<size_t> candidates;
    for (size_t i = 0; i < boxes.size(); ++i) {
        if (boxes[i].barrier == barrier) candidates.push_back(i);
    }
    if (candidates.empty()) return;
    const size_t chosen = candidates[random_below(candidates.size())];
    const Box box = boxes[chosen];
    boxes.erase(boxes.begin() + static_cast<ptrdiff_t>(chosen));
    land(box);
}

// What the copy engine reads is checked when it is told to, by a thread that can be named.
void check_source(const Box& box) {
    for (int axis = 2; axis < 4; ++axis) {
        if (!is_inside(box, axis, box.first[axis])) return;
    }
    const auto clamp = [&](int axis, int64_t index) {
        return std::max<int64_t>(0, std::min(index, box.map.lengths[axis] - 1));
    };
    const unsigned char* const first =
        source_of(box, clamp(1, box.first[1]), clamp(0, box.first[0]));
    const unsigned char* const last = source_of(box, clamp(1, box.first[1] + box.map.box_rows - 1),
                                                clamp(0, box.first[0] + kBoxColumns - 1));
    if (device_of(first, static_cast<size_t>(last + kElementBytes - first)) < 0)
        end_kernel("has a box brought of " + describe(last));
}

}  // namespace

void forget_hopper() {
    barriers.clear();
    meetings.clear();
    boxes.clear();
}

bool are_boxes_on_their_way() { return !boxes.empty(); }

uint32_t shared_address(const void* pointer) {
    const auto* const byte = static_cast<const unsigned char*>(pointer);
    if (byte < shared_memory() || byte >= shared_memory() + shared_bytes())
        end_kernel("takes for shared memory what is none");
    return kFirstAddress + static_cast<uint32_t>(byte - shared_memory());
}

const unsigned char* shared_at(uint32_t address) {
    const uint32_t at = address - kFirstAddress;
    if (at + kElementBytes > shared_bytes()) end_kernel("multiplies what is no shared memory");
    return shared_memory() + at;
}

void init_barrier(const void* barrier, uint32_t arrivals) {
    if (shared_address(barrier) % 8 != 0) end_kernel("makes a barrier at no multiple of 8");
    barriers[barrier] = {arrivals, arrivals, 0, 0};
}

void arrive(const void* barrier, uint32_t bytes) {
    State& state = state_of(barrier);
    if (state.missing == 0) end_kernel("arrives where all have arrived in this phase");
    --state.missing;
    state.bytes += bytes;
    end_phase_if_complete(state);
}

void wait(const void* barrier, uint32_t parity, const char* file, int line) {
    state_of(barrier);
    const auto has_ended = [barrier, parity] {
        if (barriers.at(barrier).phase % 2 == parity) land_one(barrier);
        return barriers.at(barrier).phase % 2 != parity;
    };
    wait_until(has_ended, file, line);
}

void arrive_threads(int number, int threads, bool waits, const char* file, int line) {
    if (number < 1 || number > 15) end_kernel("uses a barrier beyond the 15 for some warps");
    if (threads % 32 != 0 || static_cast<unsigned>(threads) > block_threads())
        end_kernel("uses a barrier of " + std::to_string(threads) + " threads");
    Meeting& meeting = meetings[number];
    if (meeting.arrived.empty()) meeting.threads = threads;
    if (meeting.threads != threads) end_kernel("expects other threads at a barrier than others do");
    if (!meeting.arrived.insert(running_thread()).second)
        end_kernel("arrives twice at a barrier of some warps");
    const uint64_t mine = meeting.number;
    if (meeting.arrived.size() == static_cast<size_t>(threads)) {
        meeting.arrived.clear();
        ++meeting.number;
    }
    if (waits) wait_until([number, mine] { return meetings[number].number != mine; }, file, line);
}

void start_box(const Box& box) {
    // Otherwise its rows would be swizzled differently.
    if (shared_address(box.target) % 1024 != 0)
        end_kernel("has a box brought to an address that is no multiple of 1024");
    const auto bytes = static_cast<size_t>(box.map.box_rows * kBoxColumns * kElementBytes);
    shared_address(static_cast<unsigned char*>(box.target) + bytes - 1);
    state_of(box.barrier);
    check_source(box);
    boxes.push_back(box);
    if (random_below(2) == 0) land_one(box.barrier);
}

}  // namespace cuda_emulator
