#include "lab/weight_compare.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <limits>

#include "lab/error.h"
#include "lab/parallel.h"

namespace lab {
namespace {

constexpr size_t kPart = 1 << 16;  // values: two buffers of floats fit the L2 cache

// A slice of one pair: values, bytes or tiles [first, first + n).
struct Job {
  size_t pair;
  uint64_t first, n;
};

// Runs work(job, result) for all jobs and adds the results of each pair up in order.
template <class Result, class Work, class Add>
std::vector<Result> RunJobs(size_t pairs, const std::vector<Job>& jobs, int threads, Work&& work,
                            Add&& add) {
  std::vector<Result> parts(jobs.size());
  ParallelEach(jobs.size(), static_cast<size_t>(threads),
               [&](size_t i) { work(jobs[i], parts[i]); });
  std::vector<Result> results(pairs);
  for (size_t i = 0; i < jobs.size(); ++i) add(results[jobs[i].pair], parts[i], jobs[i]);
  return results;
}

void AddJobs(size_t pair, uint64_t total, uint64_t step, std::vector<Job>& jobs) {
  for (uint64_t first = 0; first < total; first += step)
    jobs.push_back({pair, first, std::min(step, total - first)});
}

// Eight sums side by side, so that the compiler can use vectors without reordering a sum.
constexpr size_t kLanes = 8;
struct Sums {
  double aa[kLanes] = {}, bb[kLanes] = {}, ab[kLanes] = {}, dd[kLanes] = {}, max[kLanes] = {};

  void Add(const float* a, const float* b, size_t lanes) {
    for (size_t l = 0; l < lanes; ++l) {
      const double x = a[l], y = b[l], d = x - y;
      aa[l] += x * x;
      bb[l] += y * y;
      ab[l] += x * y;
      dd[l] += d * d;
      max[l] = std::max(max[l], std::abs(d));
    }
  }
};

// d.at counts from the first of these values.
void Accumulate(const float* a, const float* b, size_t n, ValueDifference& d) {
  Sums sums;
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) sums.Add(a + i, b + i, kLanes);
  sums.Add(a + i, b + i, n - i);
  for (size_t l = 0; l < kLanes; ++l) {
    d.aa += sums.aa[l], d.bb += sums.bb[l], d.ab += sums.ab[l], d.dd += sums.dd[l];
    d.max_abs = std::max(d.max_abs, sums.max[l]);
  }
  d.n += n;
  const bool nan = std::isnan(d.dd);
  if (nan) d.max_abs = std::numeric_limits<double>::quiet_NaN();
  if (d.dd == 0) return;
  for (size_t k = 0; k < n; ++k) {
    const double distance = std::abs(static_cast<double>(a[k]) - static_cast<double>(b[k]));
    if (nan ? std::isnan(distance) : distance == d.max_abs) {
      d.at = k;
      return;
    }
  }
}

void AddPart(ValueDifference& sum, const ValueDifference& part) {
  if (!std::isnan(sum.max_abs) && !(part.max_abs <= sum.max_abs)) {
    sum.max_abs = part.max_abs;
    sum.at = part.at;
  }
  sum.aa += part.aa, sum.bb += part.bb, sum.ab += part.ab, sum.dd += part.dd;
  sum.n += part.n;
}

// --- transposed: tiles of 256 x 256 ---

constexpr uint64_t kTile = 256;

uint64_t Cols(const WeightTensor& t) {
  return t.dims[0];
}
uint64_t Rows(const WeightTensor& t) {
  return t.elements() / t.dims[0];
}
uint64_t TilesAcross(const WeightTensor& t) {
  return (Cols(t) + kTile - 1) / kTile;
}
uint64_t Tiles(const WeightTensor& t) {
  return TilesAcross(t) * ((Rows(t) + kTile - 1) / kTile);
}

void CompareTile(const ComparePair& pair, uint64_t tile, ValueDifference& d) {
  const uint64_t rows = Rows(*pair.a), cols = Cols(*pair.a);
  const uint64_t r0 = tile / TilesAcross(*pair.a) * kTile, c0 = tile % TilesAcross(*pair.a) * kTile;
  const size_t height = std::min(kTile, rows - r0), width = std::min(kTile, cols - c0);
  std::vector<float> a(width), b(width), columns(width * height);
  for (size_t c = 0; c < width; ++c)
    DequantFlat(*pair.b, (c0 + c) * rows + r0, height, &columns[c * height]);
  for (size_t r = 0; r < height; ++r) {
    DequantFlat(*pair.a, (r0 + r) * cols + c0, width, a.data());
    for (size_t c = 0; c < width; ++c) b[c] = columns[c * height + r];
    ValueDifference row;
    Accumulate(a.data(), b.data(), width, row);
    row.at += (r0 + r) * cols + c0;
    AddPart(d, row);
  }
}

void CompareSlice(const ComparePair& pair, const Job& job, ValueDifference& d) {
  std::vector<float> a(job.n), b(job.n);
  DequantFlat(*pair.a, job.first, job.n, a.data());
  DequantFlat(*pair.b, job.first, job.n, b.data());
  Accumulate(a.data(), b.data(), job.n, d);
  d.at += job.first;
}

// --- fields of blocks ---

struct Field {
  BlockType type;
  size_t begin;  // its first byte
  std::string_view name;
};
#define FIELD(type, field) \
  { BlockType::type, offsetof(Block##type, field), #field }
constexpr Field kFields[] = {
    FIELD(Q4_0, d),  FIELD(Q4_0, qs), FIELD(Q5_0, d),    FIELD(Q5_0, qh),     FIELD(Q5_0, qs),
    FIELD(Q8_0, d),  FIELD(Q8_0, qs), FIELD(Q4_K, d),    FIELD(Q4_K, dmin),   FIELD(Q4_K, scales),
    FIELD(Q4_K, qs), FIELD(Q5_K, d),  FIELD(Q5_K, dmin), FIELD(Q5_K, scales), FIELD(Q5_K, qh),
    FIELD(Q5_K, qs), FIELD(Q6_K, ql), FIELD(Q6_K, qh),   FIELD(Q6_K, scales), FIELD(Q6_K, d)};
#undef FIELD

}  // namespace

double ValueDifference::Cosine() const {
  if (aa == 0 && bb == 0) return 1;
  if (aa == 0 || bb == 0) return 0;
  return ab / std::sqrt(aa * bb);
}

double ValueDifference::Rms() const {
  return std::sqrt(dd / static_cast<double>(n));
}

std::vector<ValueDifference> CompareValues(std::span<const ComparePair> pairs, int threads) {
  std::vector<Job> jobs;
  for (size_t p = 0; p < pairs.size(); ++p)
    pairs[p].order == Order::same ? AddJobs(p, pairs[p].a->elements(), kPart, jobs)
                                  : AddJobs(p, Tiles(*pairs[p].a), 1, jobs);
  return RunJobs<ValueDifference>(
      pairs.size(), jobs, threads,
      [&](const Job& job, ValueDifference& d) {
        const ComparePair& pair = pairs[job.pair];
        pair.order == Order::same ? CompareSlice(pair, job, d) : CompareTile(pair, job.first, d);
      },
      [](ValueDifference& sum, const ValueDifference& part, const Job&) { AddPart(sum, part); });
}

std::vector<ByteDifference> CompareBytes(std::span<const ComparePair> pairs, int threads) {
  std::vector<Job> jobs;
  for (size_t p = 0; p < pairs.size(); ++p) AddJobs(p, pairs[p].a->bytes, 1 << 20, jobs);
  return RunJobs<ByteDifference>(
      pairs.size(), jobs, threads,
      [&](const Job& job, ByteDifference& d) {
        const uint8_t* a = pairs[job.pair].a->data + job.first;
        const uint8_t* b = pairs[job.pair].b->data + job.first;
        if (std::memcmp(a, b, job.n) == 0) return;
        d.first = job.first + static_cast<uint64_t>(std::mismatch(a, a + job.n, b).first - a);
        for (uint64_t i = 0; i < job.n; ++i) d.differing += a[i] != b[i];
      },
      [](ByteDifference& sum, const ByteDifference& part, const Job&) {
        if (sum.differing == 0) sum.first = part.first;
        sum.differing += part.differing;
      });
}

std::vector<float> Sample(const WeightTensor& t, Order order, uint64_t cols) {
  const uint64_t n = t.elements(), places = std::min<uint64_t>(n, 512);
  std::vector<float> values(places);
  for (uint64_t k = 0; k < places; ++k) {
    // One in each of equally long stretches, elsewhere in each: 997 is a prime.
    const uint64_t i = n / places * k + k * 997 % (n / places);
    DequantFlat(t, order == Order::same ? i : i % cols * (n / cols) + i / cols, 1, &values[k]);
  }
  return values;
}

std::string DescribeByte(const WeightTensor& t, uint64_t offset) {
  if (t.packing != Packing::blocks) return fmt::format("byte {}", offset);
  const uint64_t row_bytes = t.dims[0] / t.block->elements * t.block->bytes;
  const uint64_t block = offset % row_bytes / t.block->bytes;
  const auto byte = static_cast<uint32_t>(offset % t.block->bytes);
  const std::string row = fmt::format("row {}", offset / row_bytes);
  if (t.block->elements == 1) return fmt::format("{}, column {}, byte {}", row, block, byte);
  const auto field = std::find_if(std::rbegin(kFields), std::rend(kFields), [&](const Field& f) {
    return f.type == t.block->type && byte >= f.begin;
  });
  return fmt::format("{}, block {} (columns {} to {}), byte {} ({})", row, block,
                     block * t.block->elements, (block + 1) * t.block->elements - 1, byte,
                     field->name);
}

}  // namespace lab
