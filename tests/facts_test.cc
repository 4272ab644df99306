// Bounds of the distance of two rows hold whatever the rows, and are as tight as they claim.
#include "lab/facts.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "lab/random.h"
#include "lab/sketch.h"

namespace lab {
namespace {

using Row = std::vector<double>;

double TrueDistance(const Row& a, const Row& b) {
  double squares = 0;
  for (size_t i = 0; i < a.size(); ++i) squares += (a[i] - b[i]) * (a[i] - b[i]);
  return std::sqrt(squares);
}

Facts Statistics(const Row& row) {
  Facts facts = FactsOf(row);
  facts.row.clear();
  return facts;
}

// The figures as a file with four digits after the point has them.
Facts Rounded(const Row& row) {
  Facts facts = Statistics(row);
  Figures& f = facts.figures;
  for (auto* figure : {&f.min, &f.max, &f.mean, &f.std, &f.absmax})
    *figure = Figure{std::round((*figure)->value * 1e4) / 1e4, 0.5e-4};
  f.rms = f.l2 = f.sum = {};
  return facts;
}

Row RandomRow(Random& random, size_t n, double scale, double shift) {
  Row row(n);
  for (double& x : row) x = random.Signed() * scale + shift;
  return row;
}

class FactsOfPairs : public testing::Test {
 protected:
  // Pairs of every relation: unrelated, near, scaled, shifted, one channel changed.
  void ForEachPair(const std::function<void(const Row&, const Row&)>& check) {
    Random random(7);
    for (int i = 0; i < 200; ++i) {
      const size_t n = 2 + random.Below(500);
      const double mean = random.Signed(), scale = std::pow(10.0, random.Signed());
      const Row a = RandomRow(random, n, scale, mean);
      Row b = a;
      switch (i % 5) {
        case 0:
          b = RandomRow(random, n, 1, 0);
          break;
        case 1:
          for (double& x : b) x += 1e-5 * random.Signed();
          break;
        case 2:
          for (double& x : b) x *= 1.5;
          break;
        case 3:
          for (double& x : b) x += 0.25;
          break;
        case 4:
          b[random.Below(static_cast<uint32_t>(n))] += 3;
          break;
      }
      check(a, b);
    }
  }
};

TEST_F(FactsOfPairs, StatisticsNeverClaimMoreThanTheDistance) {
  ForEachPair([](const Row& a, const Row& b) {
    const double distance = TrueDistance(a, b);
    for (const Distance& d :
         {DistanceOf(Statistics(a), Statistics(b)), DistanceOf(Rounded(a), Rounded(b)),
          DistanceOf(Statistics(a), Rounded(b)), DistanceOf(FactsOf(a), Rounded(b))}) {
      EXPECT_LE(d.at_least, distance * (1 + 1e-12));
      EXPECT_EQ(d.evidence, Evidence::statistics);
      EXPECT_GT(d.at_most, distance);
    }
  });
}

TEST_F(FactsOfPairs, SketchesBoundTheDistanceOnBothSides) {
  size_t pairs = 0;
  ForEachPair([&](const Row& a, const Row& b) {
    Facts x = Statistics(a), y = Statistics(b);
    x.sketch = MakeSketch(a.data(), a.size());
    y.sketch = MakeSketch(b.data(), b.size());
    const Distance d = DistanceOf(x, y);
    const double distance = TrueDistance(a, b);
    EXPECT_EQ(d.evidence, Evidence::sketch);
    EXPECT_LE(d.at_least, distance * (1 + 1e-9));
    EXPECT_GE(d.at_most, distance * (1 - 1e-9));
    EXPECT_LE(d.at_most, 3 * distance + 1e-6) << "no news is no bound";
    const double estimate = DistanceOf(*x.sketch, *y.sketch).estimate;
    EXPECT_NEAR(estimate / distance, 1, 0.45);
    EXPECT_EQ(DistanceOf(FactsOf(a), y).at_least > 0, true) << "a row stands for its sketch";
    ++pairs;
  });
  EXPECT_EQ(pairs, 200u);
}

TEST_F(FactsOfPairs, SingleValuesNeverClaimMoreThanTheDistance) {
  ForEachPair([](const Row& a, const Row& b) {
    Facts some = Statistics(b);
    for (size_t i = 0; i < b.size(); i += 3) some.values[i] = {b[i], 0};
    const Distance d = DistanceOf(FactsOf(a), some);
    EXPECT_EQ(d.evidence, Evidence::values);
    EXPECT_LE(d.at_least, TrueDistance(a, b) * (1 + 1e-12));
    Facts alone;
    alone.values = some.values;
    EXPECT_LE(DistanceOf(Statistics(a), alone).at_least, TrueDistance(a, b) * (1 + 1e-12))
        << "against the range";
  });
}

TEST_F(FactsOfPairs, TensorsGiveTheDistance) {
  ForEachPair([](const Row& a, const Row& b) {
    const Distance d = DistanceOf(FactsOf(a), FactsOf(b));
    EXPECT_EQ(d.evidence, Evidence::tensors);
    EXPECT_DOUBLE_EQ(d.at_least, TrueDistance(a, b));
    EXPECT_EQ(d.at_least, d.at_most);
  });
}

TEST(Facts, BoundsAreTightWhereTheyCanBe) {
  Random random(3);
  const Row a = RandomRow(random, 300, 1, 0);
  Row scaled = a, shifted = a, spike = a;
  for (double& x : scaled) x *= 1.01;
  for (double& x : shifted) x += 0.01;
  spike[17] = 50;
  for (const Row& b : {scaled, shifted})
    EXPECT_NEAR(DistanceOf(Statistics(a), Statistics(b)).at_least, TrueDistance(a, b),
                1e-3 * TrueDistance(a, b));
  EXPECT_GT(DistanceOf(Statistics(a), Statistics(spike)).at_least, 49);
  Facts value;
  value.values[17] = {50, 0.5};
  const Distance d = DistanceOf(Statistics(a), value);
  EXPECT_NEAR(d.at_least, 50 - 0.5 - Statistics(a).figures.max->value, 1e-9);
  EXPECT_EQ(d.channel, 17u);
}

TEST(Facts, NotFiniteOnOneSideIsInfinitelyFar) {
  const double nan = std::nan(""), inf = std::numeric_limits<double>::infinity();
  const Row good = {1, 2, 3};
  for (const Row& bad : {Row{1, nan, 3}, Row{1, inf, 3}}) {
    EXPECT_EQ(DistanceOf(FactsOf(good), FactsOf(bad)).at_least, inf);
    EXPECT_EQ(DistanceOf(Statistics(good), Statistics(bad)).at_least, inf);
    EXPECT_EQ(DistanceOf(FactsOf(bad), FactsOf(bad)).at_least, 0);
  }
  const Row all = {nan, nan, nan};
  EXPECT_EQ(DistanceOf(FactsOf(all), FactsOf(all)).evidence, Evidence::nothing);
}

TEST(Facts, AnotherWidthIsAnotherThing) {
  EXPECT_EQ(DistanceOf(Statistics({1, 2}), Statistics({1, 2, 3})).at_least,
            std::numeric_limits<double>::infinity());
  EXPECT_EQ(DistanceOf(FactsOf(Row{1, 2}), FactsOf(Row{1, 2, 3})).at_least,
            std::numeric_limits<double>::infinity());
}

TEST(Facts, PooledFiguresAreThoseOfOneLongRow) {
  Random random(11);
  std::vector<Facts> parts;
  std::vector<const Figures*> figures;
  Row all;
  for (int t = 0; t < 5; ++t) {
    const Row row = RandomRow(random, 64 + 32 * static_cast<size_t>(t), 1 + t, 0.1 * t);
    all.insert(all.end(), row.begin(), row.end());
    parts.push_back(Statistics(row));
  }
  for (const Facts& part : parts) figures.push_back(&part.figures);
  const Figures pooled = PoolFigures(figures);
  const Figures expected = FactsOf(all).figures;
  EXPECT_EQ(pooled.n, expected.n);
  EXPECT_NEAR(pooled.std->value, expected.std->value, 1e-12);
  EXPECT_NEAR(pooled.mean->value, expected.mean->value, 1e-12);
  EXPECT_NEAR(pooled.l2->value, expected.l2->value, 1e-10);
  EXPECT_EQ(pooled.absmax->value, expected.absmax->value);
  parts[2].figures.absmax.reset();
  EXPECT_FALSE(PoolFigures(figures).absmax) << "what one lacks is unknown";
}

// Some rows are so small that all their figures are printed as 0.0000.
TEST(Facts, PooledFiguresAreTheTruthWithinTheirRounding) {
  Random random(13);
  for (int i = 0; i < 200; ++i) {
    std::vector<Facts> parts;
    Row all;
    for (size_t rows = 1 + random.Below(4); parts.size() < rows;) {
      const double scale = std::pow(10.0, 3 * random.Signed() - 3);
      const Row row = RandomRow(random, 2 + random.Below(50), scale, scale * random.Signed());
      all.insert(all.end(), row.begin(), row.end());
      parts.push_back(Rounded(row));
      const double l2 = Statistics(row).figures.l2->value;
      parts.back().figures.l2 = Figure{std::round(l2 * 1e4) / 1e4, 0.5e-4};
    }
    std::vector<const Figures*> figures;
    for (const Facts& part : parts) figures.push_back(&part.figures);
    const Figures pooled = PoolFigures(figures), truth = FactsOf(all).figures;
    for (const auto member : {&Figures::min, &Figures::max, &Figures::mean, &Figures::std,
                              &Figures::absmax, &Figures::l2}) {
      const Figure& figure = *(pooled.*member);
      EXPECT_NEAR(figure.value, (truth.*member)->value, figure.rounding * (1 + 1e-9)) << i;
      EXPECT_LT(figure.rounding, 3 * 0.5e-4 + 1e-12);
    }
  }
}

TEST(Facts, SampleAndPopulation) {
  Figures f = FactsOf(Row{1, 2, 3, 4}).figures;
  ConvertStd(f, StdKind::population, StdKind::sample);
  EXPECT_NEAR(f.std->value, std::sqrt(5.0 / 3), 1e-15);
  ConvertStd(f, StdKind::sample, StdKind::population);
  EXPECT_NEAR(f.std->value, std::sqrt(1.25), 1e-15);
}

TEST(Sketch, EqualBitsHaveEqualHashes) {
  Row a = {1, 2, 3, -4.5};
  const std::vector<float> floats(a.begin(), a.end());
  const Sketch sketch = MakeSketch(a.data(), a.size());
  EXPECT_EQ(MakeSketch(floats.data(), 4).hash, sketch.hash);
  a[2] = std::nextafterf(3, 4);
  EXPECT_NE(MakeSketch(a.data(), 4).hash, sketch.hash);
  // A lone value is in every projection with a sign.
  const Row lone = {0, 0, 7, 0};
  for (const double p : MakeSketch(lone.data(), 4).projections) EXPECT_EQ(std::abs(p), 7);
}

}  // namespace
}  // namespace lab
