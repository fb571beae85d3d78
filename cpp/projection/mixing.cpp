// Hadamard matrices of the orders that are no powers of two, by the constructions of R. Paley, "On
// orthogonal matrices", 1933.
#include "projection/rotation_shape.hpp"

namespace slipstick::projection {
namespace {

// The quadratic character modulo a prime: 0 at 0, 1 at the squares, else -1.
int character(int value, int prime) {
    const int residue = (value % prime + prime) % prime;
    if (residue == 0) return 0;
    for (int root = 1; root < prime; ++root) {
        if (root * root % prime == residue) return 1;
    }
    return -1;
}

// The bordered matrix of the character: 0 in the corner, 1 along the first row, `border` down the
// first column, character(row - column) inside.
int bordered(int row, int column, int prime, int border) {
    if (row == 0) return column == 0 ? 0 : 1;
    return column == 0 ? border : character(row - column, prime);
}

}  // namespace

double mixing_entry(int order, int row, int column) {
    if (order == 28) {  // the second construction: prime 13, 1 modulo 4
        constexpr int prime = 13;
        const int entry = bordered(row / 2, column / 2, prime, 1);
        const bool both_odd = row % 2 == 1 && column % 2 == 1;
        if (entry != 0) return both_odd ? -entry : entry;  // entry * [[1, 1], [1, -1]]
        return row % 2 == 0 && column % 2 == 0 ? 1 : -1;   // [[1, -1], [-1, -1]]
    }
    const int prime = order - 1;  // the first construction: 11 or 19, 3 modulo 4
    return row == column ? 1 : bordered(row, column, prime, -1);
}

}  // namespace slipstick::projection
