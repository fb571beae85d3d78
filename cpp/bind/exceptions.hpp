// The exceptions of a module in Python, beyond those that pybind11 knows.
#pragma once

#include <pybind11/pybind11.h>

#include <new>

#include "core/error.hpp"

namespace slipstick::bind {

inline void register_exceptions() {
    pybind11::register_local_exception_translator([](std::exception_ptr pointer) {
        try {
            std::rethrow_exception(pointer);
        } catch (const TypeError& error) {
            pybind11::set_error(PyExc_TypeError, error.what());
        } catch (const std::bad_alloc&) {
            pybind11::set_error(PyExc_MemoryError,
                                "slipstick: no memory for what this call works with");
        }
    });
}

}  // namespace slipstick::bind
