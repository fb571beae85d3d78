// The one way to refuse a call. A message is one sentence: function, argument, expected, given.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace slipstick {

// Becomes TypeError in Python; std::invalid_argument becomes ValueError.
class TypeError : public std::exception {
public:
    explicit TypeError(std::string message) : message_(std::move(message)) {}
    const char* what() const noexcept override { return message_.c_str(); }

private:
    std::string message_;
};

template <class... Parts>
std::string text(const Parts&... parts) {
    std::ostringstream stream;
    (stream << ... << parts);
    return stream.str();
}

// refuse_value("attention", "`key` must have ", 64, " columns like `query`, got shape ", shape)
template <class... Parts>
[[noreturn]] void refuse_value(const char* function, const Parts&... parts) {
    throw std::invalid_argument(text(function, ": ", parts...));
}

template <class... Parts>
[[noreturn]] void refuse_type(const char* function, const Parts&... parts) {
    throw TypeError(text(function, ": ", parts...));
}

}  // namespace slipstick
