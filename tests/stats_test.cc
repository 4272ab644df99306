#include "lab/stats.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "lab/names.h"
#include "lab/trace.h"

namespace lab {
namespace {

TEST(Stats, OfAKnownRow) {
  const std::vector<double> x = {3, -4, 0, 5};
  const Stats s = ComputeStats(x.data(), x.size());
  EXPECT_EQ(s.n, 4u);
  EXPECT_EQ(s.zeros, 1u);
  EXPECT_EQ(s.min, -4);
  EXPECT_EQ(s.max, 5);
  EXPECT_EQ(s.mean, 1);
  EXPECT_DOUBLE_EQ(s.std, std::sqrt(46.0 / 4));
  EXPECT_DOUBLE_EQ(s.l2, std::sqrt(50.0));
  EXPECT_DOUBLE_EQ(s.rms, std::sqrt(12.5));
  EXPECT_EQ(s.absmax, 5);
  EXPECT_EQ(s.argmax, 3u);
  EXPECT_DOUBLE_EQ(s.crest, 5 / std::sqrt(12.5));
}

TEST(Stats, NaNSpoilsEveryFigureAndIsLocated) {
  const std::vector<float> x = {1, 2, NAN, INFINITY};
  const Stats s = ComputeStats(x.data(), x.size());
  EXPECT_EQ(s.nan, 1u);
  EXPECT_EQ(s.inf, 1u);
  EXPECT_EQ(s.argmax, 2u);
  for (const double figure : {s.min, s.max, s.mean, s.std, s.rms, s.absmax, s.l2, s.crest})
    EXPECT_TRUE(std::isnan(figure));
  EXPECT_FALSE(s.finite());
}

TEST(Stats, InfinityIsLocated) {
  const std::vector<float> x = {1, -INFINITY, 2};
  const Stats s = ComputeStats(x.data(), x.size());
  EXPECT_EQ(s.inf, 1u);
  EXPECT_EQ(s.argmax, 1u);
  EXPECT_EQ(s.min, -INFINITY);
  EXPECT_FALSE(s.finite());
}

TEST(Stats, EmptyAndZeroRows) {
  EXPECT_EQ(ComputeStats<float>(nullptr, 0).n, 0u);
  const std::vector<float> zeros(8);
  const Stats s = ComputeStats(zeros.data(), zeros.size());
  EXPECT_EQ(s.zeros, 8u);
  EXPECT_EQ(s.crest, 0);
  EXPECT_FALSE(s.massive());
}

// Sums of pieces as a device makes them.
TapSums PieceOf(const std::vector<float>& x, uint64_t first) {
  const Stats s = ComputeStats(x.data(), x.size());
  TapSums piece = {};
  piece.n = static_cast<uint32_t>(s.n);
  piece.nan = static_cast<uint32_t>(s.nan);
  piece.inf = static_cast<uint32_t>(s.inf);
  piece.zeros = static_cast<uint32_t>(s.zeros);
  piece.sum = s.mean * static_cast<double>(s.n);
  piece.squares = s.l2 * s.l2;
  piece.deviations = s.std * s.std * static_cast<double>(s.n);
  piece.min = static_cast<float>(s.min);
  piece.max = static_cast<float>(s.max);
  piece.argmax = first + s.argmax;
  return piece;
}
Stats StatsOfPieces(const std::vector<std::vector<float>>& pieces) {
  std::vector<TapSums> sums;
  size_t first = 0;
  for (const auto& x : pieces) {
    sums.push_back(PieceOf(x, first));
    first += x.size();
  }
  return StatsOf(sums);
}

TEST(Stats, OfPiecesAreThoseOfTheRow) {
  const std::vector<float> row = {3, -4, 0, 5, 1000, 1, -1000, 2, 8};
  const Stats whole = ComputeStats(row.data(), row.size());
  const Stats pieces = StatsOfPieces({{3, -4, 0, 5}, {1000, 1}, {-1000, 2, 8}});
  EXPECT_EQ(pieces.n, whole.n);
  EXPECT_EQ(pieces.zeros, 1u);
  EXPECT_EQ(pieces.min, -1000);
  EXPECT_EQ(pieces.max, 1000);
  EXPECT_EQ(pieces.absmax, 1000);
  EXPECT_EQ(pieces.argmax, 4u);  // the first of equals
  EXPECT_DOUBLE_EQ(pieces.mean, whole.mean);
  EXPECT_DOUBLE_EQ(pieces.std, whole.std);
  EXPECT_DOUBLE_EQ(pieces.rms, whole.rms);
  EXPECT_DOUBLE_EQ(pieces.l2, whole.l2);
  EXPECT_DOUBLE_EQ(pieces.crest, whole.crest);
  EXPECT_EQ(StatsOfPieces({{0, 0}, {0}}).argmax, 0u);
  EXPECT_EQ(StatsOf({}).n, 0u);
}

TEST(Stats, OfPiecesWithNaNOrInfFollowTheRules) {
  const Stats nan = StatsOfPieces({{1, INFINITY}, {1, NAN}, {NAN}});
  EXPECT_EQ(nan.nan, 2u);
  EXPECT_EQ(nan.inf, 1u);
  EXPECT_EQ(nan.argmax, 3u);
  for (const double figure : {nan.min, nan.max, nan.mean, nan.std, nan.rms, nan.absmax, nan.l2})
    EXPECT_TRUE(std::isnan(figure));
  const Stats inf = StatsOfPieces({{1, 2}, {-INFINITY, 1}, {INFINITY}});
  EXPECT_EQ(inf.argmax, 2u);
  EXPECT_EQ(inf.min, -INFINITY);
  EXPECT_EQ(inf.max, INFINITY);
  EXPECT_EQ(inf.rms, INFINITY);
  EXPECT_TRUE(std::isnan(inf.mean) && std::isnan(inf.std));
}

TEST(Stats, PoolEqualsTheStatisticsOfAllRowsTogether) {
  const std::vector<std::vector<double>> rows = {{1, 2, 3, 1000}, {-5, 0, 5, 1}, {7, 7, 7, -7}};
  std::vector<double> all;
  std::vector<Stats> stats;
  for (const auto& row : rows) {
    all.insert(all.end(), row.begin(), row.end());
    stats.push_back(ComputeStats(row.data(), row.size()));
  }
  const Stats whole = ComputeStats(all.data(), all.size());
  const Stats pooled = Pool(std::vector<const Stats*>{&stats[0], &stats[1], &stats[2]});
  EXPECT_EQ(pooled.n, whole.n);
  EXPECT_EQ(pooled.zeros, whole.zeros);
  EXPECT_EQ(pooled.min, whole.min);
  EXPECT_EQ(pooled.max, whole.max);
  EXPECT_DOUBLE_EQ(pooled.mean, whole.mean);
  EXPECT_DOUBLE_EQ(pooled.std, whole.std);
  EXPECT_DOUBLE_EQ(pooled.l2, whole.l2);
  EXPECT_DOUBLE_EQ(pooled.crest, whole.crest);
  EXPECT_EQ(pooled.argmax, 0u);  // the row
}

TEST(Stats, PoolKeepsNaN) {
  const std::vector<float> good = {1, 2}, bad = {1, NAN};
  const Stats a = ComputeStats(good.data(), 2), b = ComputeStats(bad.data(), 2);
  const Stats pooled = Pool(std::vector<const Stats*>{&a, &b});
  EXPECT_EQ(pooled.nan, 1u);
  EXPECT_TRUE(std::isnan(pooled.std));
  EXPECT_EQ(pooled.argmax, 1u);
}

TEST(Stats, MassiveNeedsSizeAndShare) {
  std::vector<double> x(1000, 1.0);
  x[17] = 150;
  EXPECT_TRUE(ComputeStats(x.data(), x.size()).massive());
  for (double& v : x) v *= 0.5;  // the same share, below 100
  EXPECT_FALSE(ComputeStats(x.data(), x.size()).massive());
  std::vector<double> flat(1000, 150.0);  // large, but no channel stands out
  EXPECT_FALSE(ComputeStats(flat.data(), flat.size()).massive());
}

TEST(Top, OrdersByLogitThenIdAndPutsNaNLast) {
  const std::vector<float> logits = {1, 3, NAN, 3, 2};
  const TopRecord top = ComputeTop(logits.data(), logits.size(), 0, 5);
  EXPECT_EQ(top.ids, (std::vector<int32_t>{1, 3, 4, 0, 2}));
  // Every value is a new highest, or none.
  const std::vector<float> rising = {1, 2, 3, 4}, equal(4);
  for (const auto& [values, ids] : {std::pair(logits, std::vector{1, 3}),
                                    {rising, std::vector{3, 2}},
                                    {equal, std::vector{0, 1}}})
    EXPECT_EQ(ComputeTop(values.data(), values.size(), 0, 2).ids, ids);
  const std::vector<float> two = {0, 0};
  EXPECT_DOUBLE_EQ(ComputeTop(two.data(), 2, 0, 9).p[1], 0.5);  // k larger than the vocabulary
  EXPECT_TRUE(ComputeTop<float>(nullptr, 5, 0, 0).ids.empty());
  const std::vector<float> many(1000);  // a run keeps a record for each token
  EXPECT_LT(ComputeTop(many.data(), many.size(), 0, 5).ids.capacity(), 100u);
}

TEST(TapFilter, MatchesNamesAndPaths) {
  const std::vector<std::string> globs = {"ffn_s*", "L01.qkv"};
  const TapFilter filter(globs, 3);
  EXPECT_TRUE(filter.Has(Tap::ffn_silu, 2));
  EXPECT_TRUE(filter.Has(Tap::qkv, 1));
  EXPECT_FALSE(filter.Has(Tap::qkv, 0));
  EXPECT_FALSE(filter.Has(Tap::lm_head, kNoLayer));
  EXPECT_TRUE(TapFilter({}, 3).Has(Tap::lm_head, kNoLayer));
}

TEST(Names, SpellingHints) {
  constexpr std::string_view kNames[] = {"forward", "tokenize", "list"};
  EXPECT_EQ(DidYouMean("forwrd", kNames), " (did you mean 'forward'?)");
  EXPECT_EQ(DidYouMean("xyzzy", kNames), "");
}

TEST(Names, PrintableEscapesWhatATerminalWouldObey) {
  EXPECT_EQ(Printable("a\x1b[31m\n\xff"), "a\\x1b[31m\\x0a\\xff");
  EXPECT_EQ(Printable(std::string(100, 'x'), 10), "xxxxxxxxxx...");
  EXPECT_EQ(Printable("\xe6\x97\xa5"), "\xe6\x97\xa5");
}

}  // namespace
}  // namespace lab
