// How RunRow cuts a row's work and spreads it over threads.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <vector>

#include "lab/registry.h"

namespace lab {
namespace {

// Counts who computes which item.
struct Record {
  std::vector<std::atomic<int>> times;
  std::mutex mutex;
  std::vector<size_t> begins;
};

struct CountingArgs {
  Record* record;
  size_t begin, end, work_of_item;

  static constexpr size_t kSliceGrain = 32;
  size_t Items() const { return end - begin; }
  size_t Work() const { return Items() * work_of_item; }
  CountingArgs Slice(size_t first, size_t last) const {
    return {record, begin + first, begin + last, work_of_item};
  }
};

void Count(const void* args) {
  const auto& a = *static_cast<const CountingArgs*>(args);
  for (size_t i = a.begin; i < a.end; ++i) ++a.record->times[i];
  const std::lock_guard lock(a.record->mutex);
  a.record->begins.push_back(a.begin);
}

// Runs a row that counts; all of the record must be computed once.
template <class Args>
void RunCounted(void (*count)(const void*), const Args& args, int threads) {
  Row row = {};
  row.args = &typeid(Args);
  row.run = count;
  RunRow(row, args, threads);
  const auto& times = args.record->times;
  for (size_t i = 0; i < times.size(); ++i) EXPECT_EQ(times[i], 1) << i << " of " << times.size();
}

// The slices of so many items.
size_t SlicesOf(size_t items, size_t work_of_item, int threads) {
  Record record = {std::vector<std::atomic<int>>(items), {}, {}};
  RunCounted(Count, CountingArgs{&record, 0, items, work_of_item}, threads);
  for (const size_t begin : record.begins) EXPECT_EQ(begin % CountingArgs::kSliceGrain, 0u);
  return record.begins.size();
}

TEST(RunRow, EveryItemOnceWhateverTheSizes) {
  for (const size_t items : {0, 1, 31, 32, 33, 1000, 4097})
    for (const int threads : {1, 2, 3, 7})
      for (const int bits : {0, 14, 20, 27, 33}) SlicesOf(items, size_t{1} << bits, threads);
}

TEST(RunRow, LargeStepsHaveSeveralSlicesForEachThread) {
  EXPECT_EQ(SlicesOf(4096, 1, 2), 1u);         // not worth waking a thread
  EXPECT_EQ(SlicesOf(4096, 1 << 10, 2), 2u);   // a slice each
  EXPECT_EQ(SlicesOf(4096, 1 << 11, 2), 4u);   // two
  EXPECT_EQ(SlicesOf(4096, 1 << 24, 2), 32u);  // at most sixteen
  EXPECT_EQ(SlicesOf(4096, 1 << 24, 1), 1u);
}

// Counts who computes which token of which head.
struct TokenArgs {
  Record* record;
  size_t first_head, heads, first_token, tokens;

  static constexpr size_t kTokenGrain = 8;
  size_t Items() const { return heads; }
  size_t Work() const { return heads * tokens << 20; }
  TokenArgs Slice(size_t begin, size_t end) const {
    return {record, first_head + begin, end - begin, first_token, tokens};
  }
  TokenArgs SliceTokens(size_t begin, size_t end) const {
    return {record, first_head, heads, first_token + begin, end - begin};
  }
};

constexpr size_t kHeads = 5;

void CountTokens(const void* args) {
  const auto& a = *static_cast<const TokenArgs*>(args);
  for (size_t t = 0; t < a.tokens; ++t)
    for (size_t h = 0; h < a.heads; ++h)
      ++a.record->times[(a.first_token + t) * kHeads + a.first_head + h];
  const std::lock_guard lock(a.record->mutex);
  a.record->begins.push_back(a.first_token);
}

// Where slices of so many tokens begin, in order.
std::vector<size_t> TokenSlicesOf(size_t tokens, int threads) {
  Record record = {std::vector<std::atomic<int>>(tokens * kHeads), {}, {}};
  RunCounted(CountTokens, TokenArgs{&record, 0, kHeads, 0, tokens}, threads);
  std::sort(record.begins.begin(), record.begins.end());
  return record.begins;
}

TEST(RunRow, ManyTokensAreCutIntoTokensFewIntoItems) {
  EXPECT_EQ(TokenSlicesOf(1, 3), (std::vector<size_t>{0, 0, 0}));
  EXPECT_EQ(TokenSlicesOf(23, 3), (std::vector<size_t>{0, 0, 0}));
  EXPECT_EQ(TokenSlicesOf(31, 3), (std::vector<size_t>{0, 8, 16}));
  EXPECT_EQ(TokenSlicesOf(45, 2), (std::vector<size_t>{0, 8, 16, 24, 32}));
  EXPECT_EQ(TokenSlicesOf(4096, 2).size(), 32u);
  EXPECT_EQ(TokenSlicesOf(4096, 7).size(), 112u);
  EXPECT_EQ(TokenSlicesOf(4096, 1), (std::vector<size_t>{0}));
}

}  // namespace
}  // namespace lab
