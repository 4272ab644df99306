#pragma once
// The sums behind the statistics of a row, in SIMD: a traced prefill computes them for hundreds of
// millions of values.
#include <cstddef>
#include <cstdint>

namespace lab {

/// Of finite values; in float64, in an order that depends on the vector length of the machine.
struct RowSums {
  double min = 0, max = 0, sum = 0, squares = 0;
  uint64_t zeros = 0;
};

/// All sums of n > 0 values. `squares` is not finite where a value is not (or where a square
/// overflows float64); then nothing else is promised.
RowSums SumRow(const float* values, size_t n);
RowSums SumRow(const double* values, size_t n);

/// Index of the first value of that magnitude; n if there is none.
size_t FindMagnitude(const float* values, size_t n, double magnitude);
size_t FindMagnitude(const double* values, size_t n, double magnitude);

/// sum (x - mean)^2.
double SumDeviations(const float* values, size_t n, double mean);
double SumDeviations(const double* values, size_t n, double mean);

/// sum exp(x - largest), of finite values that are at most `largest`; within a few ulp of each
/// term.
double SumExp(const float* values, size_t n, double largest);
double SumExp(const double* values, size_t n, double largest);

}  // namespace lab
