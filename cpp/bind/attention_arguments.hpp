// The arguments and results of the attention family's functions, as arrays.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>

#include "attention/results.hpp"
#include "bind/call.hpp"
#include "core/error.hpp"

namespace slipstick::bind {

// An argument that may be None.
class OptionalArray {
public:
    OptionalArray(const char* function, const char* argument, py::handle object,
                  const Place& place) {
        if (!object.is_none()) array_.emplace(function, argument, object, place);
    }
    const ConstTensor* tensor() const { return array_ ? &array_->tensor() : nullptr; }

private:
    std::optional<Array> array_;
};

inline attention::Law law_named(std::string_view name) {
    using attention::Law;
    if (name == "affine_log") return Law::kAffineLog;
    if (name == "clipped_log") return Law::kClippedLog;
    if (name == "temperature") return Law::kTemperature;
    if (name == "given") return Law::kGiven;
    refuse_value("attention", "`law` must be affine_log, clipped_log, temperature or given, got ",
                 name);
}

// query, key and value.
class InputArrays {
public:
    InputArrays(const char* function, py::handle query, py::handle key, py::handle value,
                const Place& place)
        : query_(function, "query", query, place),
          key_(function, "key", key, place),
          value_(function, "value", value, place) {}
    attention::Inputs inputs() const { return {query_.tensor(), key_.tensor(), value_.tensor()}; }

private:
    Array query_;
    Array key_;
    Array value_;
};

// The options of a call as Python has them; `law` and `scale` are Scale._lower's answer, or "given"
// and an array.
struct OptionObjects {
    std::string_view law;
    py::handle scale;
    bool causal;
    int64_t left;
    int64_t right;
    py::handle key_lengths = Py_None;
    py::handle mask = Py_None;
    double softcap;
    py::handle n_keys;
};

// An argument that may lie on the host where the others are on a device, or be None.
class OptionArray {
public:
    OptionArray(const char* function, const char* argument, py::handle object, const Place& place)
        : place_(place_of_option(object, place)), array_(function, argument, object, place_) {}
    const ConstTensor* tensor() const { return array_.tensor(); }
    bool on_device() const { return place_.type != dlpack::kCpu; }

private:
    Place place_;
    OptionalArray array_;
};

// The arrays among the options; what options() returns points into them.
class OptionArrays {
public:
    OptionArrays(const char* function, const OptionObjects& objects, const Place& place)
        : scale_(function, "scale", objects.scale, place),
          key_lengths_(function, "key_lengths", objects.key_lengths, place),
          mask_(function, "mask", objects.mask, place),
          n_keys_(function, "n_keys", objects.n_keys, place),
          options_{.scale = {law_named(objects.law), *scale_.tensor()},
                   .causal = objects.causal,
                   .left = objects.left,
                   .right = objects.right,
                   .key_lengths = key_lengths_.tensor(),
                   .mask = mask_.tensor(),
                   .n_keys = n_keys_.tensor(),
                   .softcap = objects.softcap,
                   .on_device = {.scale = scale_.on_device(),
                                 .key_lengths = key_lengths_.on_device(),
                                 .n_keys = n_keys_.on_device()}} {}
    const attention::Options& options() const { return options_; }

private:
    OptionArray scale_;
    OptionArray key_lengths_;
    OptionalArray mask_;
    OptionArray n_keys_;
    attention::Options options_;
};

// For check_out: the query stands for what is absent, and adds nothing to what `out` must not
// overlap.
inline const ConstTensor& or_query(const ConstTensor* tensor, const attention::Inputs& inputs) {
    return tensor != nullptr ? *tensor : inputs.query;
}

// New arrays for the statistics.
class StatsResult {
public:
    StatsResult(const char* function, const py::object& empty, const ResultSpec& spec,
                const Place& place)
        : lse_(function, py::none(), empty, spec, {}, false, place),
          entropy_(function, py::none(), empty, spec, {}, false, place),
          max_logit_(function, py::none(), empty, spec, {}, false, place),
          tensors_{lse_.tensor(), entropy_.tensor(), max_logit_.tensor()} {}
    const attention::Stats& tensors() const { return tensors_; }
    // (out, lse, entropy, max_logit)
    py::tuple behind(const Result& out) const {
        return py::make_tuple(out.object(), lse_.object(), entropy_.object(), max_logit_.object());
    }

private:
    Result lse_;
    Result entropy_;
    Result max_logit_;
    attention::Stats tensors_;
};

// compute(out, stats), where stats is null unless wanted; then (out, lse, entropy, max_logit), the
// last three None unless wanted.
template <class Compute>
py::tuple compute_with_stats(const char* function, const Result& out, bool wanted,
                             const py::object& empty, const ResultSpec& spec, const Place& place,
                             Compute compute) {
    if (!wanted) {
        without_gil([&] { compute(out.tensor(), nullptr); });
        return py::make_tuple(out.object(), py::none(), py::none(), py::none());
    }
    const StatsResult stats(function, empty, spec, place);
    without_gil([&] { compute(out.tensor(), &stats.tensors()); });
    return stats.behind(out);
}

// The arrays of one part of merge_attention: (out, lse, entropy, max_logit).
class PartArrays {
public:
    PartArrays(const char* function, size_t number, const py::tuple& part, const Place& place)
        : name_("parts[" + std::to_string(number) + "]"),
          names_{name_ + ".out", name_ + ".lse", name_ + ".entropy", name_ + ".max_logit"},
          out_(function, names_[0].c_str(), part[0], place),
          lse_(function, names_[1].c_str(), part[1], place),
          entropy_(function, names_[2].c_str(), part[2], place),
          max_logit_(function, names_[3].c_str(), part[3], place) {}
    attention::Part part() const {
        return {name_, out_.tensor(), lse_.tensor(), entropy_.tensor(), max_logit_.tensor()};
    }

private:
    std::string name_;
    std::array<std::string, 4> names_;
    Array out_;
    Array lse_;
    Array entropy_;
    Array max_logit_;
};

}  // namespace slipstick::bind
