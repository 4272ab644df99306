// Every block type bit for bit as the `gguf` Python package unpacks it.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>

#include "lab/registry.h"
#include "lab/safetensors.h"
#include "model/gguf.h"
#include "reference/dequant_ref.h"
#include "tests/golden.h"

namespace lab {
namespace {

TEST(Dequant, EveryTypeHasTheBitsOfTheGgufPackage) {
  const WeightFile gguf = ReadGguf(FileBytes::Map(GoldenPath("every_type.gguf")));
  const Safetensors golden(GoldenPath("every_type.safetensors"));
  EXPECT_EQ(gguf.tensors().size(), kBlockTypes.size());
  for (const BlockTypeInfo& info : kBlockTypes) {
    const std::string name = fmt::format("t.{}", info.name);
    const WeightTensor* tensor = gguf.FindTensor(name);
    const SafetensorsEntry* expected = golden.Find(name);
    ASSERT_TRUE(tensor && expected) << name;
    std::vector<float> values(tensor->elements());
    DequantRow(info.type, tensor->data, values.size(), values.data());
    ASSERT_EQ(expected->data.size(), values.size() * sizeof(float)) << name;
    for (size_t i = 0; i < values.size(); ++i) {
      uint32_t bits;
      std::memcpy(&bits, expected->data.data() + 4 * i, sizeof bits);
      ASSERT_EQ(std::bit_cast<uint32_t>(values[i]), bits) << name << " element " << i;
    }
  }
}

TEST(Dequant, RowsOfTheOpsGiveTheSameBits) {
  const WeightFile gguf = ReadGguf(FileBytes::Map(GoldenPath("every_type.gguf")));
  for (const auto& [op, name] :
       {std::pair(Op::q4k_dequant, "t.Q4_K"), std::pair(Op::q6k_dequant, "t.Q6_K")}) {
    const WeightTensor* t = gguf.FindTensor(name);
    const WeightView w = {t->block->type, t->data, t->dims[1], t->dims[0]};
    std::vector<float> plain(t->elements()), ref(t->elements(), NAN);
    std::vector<double> oracle(t->elements(), NAN);
    DequantRow(w.type, w.data, plain.size(), plain.data());
    RunRow(*FindRow(op, Contract::f32, Backend::ref), DequantArgs<float>{w, ref.data()}, 5);
    RunRow(*FindRow(op, Contract::f32, Backend::oracle), DequantArgs<double>{w, oracle.data()}, 5);
    for (size_t i = 0; i < plain.size(); ++i) {
      ASSERT_EQ(plain[i], ref[i]);
      ASSERT_EQ(static_cast<double>(plain[i]), oracle[i]);
    }
  }
}

TEST(Dequant, HalfFloats) {
  EXPECT_EQ(HalfToFloat(0x3c00), 1.0f);
  EXPECT_EQ(HalfToFloat(0xc000), -2.0f);
  EXPECT_EQ(HalfToFloat(0x7bff), 65504.0f);
  EXPECT_EQ(HalfToFloat(0x0001), 0x1p-24f);
  EXPECT_EQ(HalfToFloat(0x0400), 0x1p-14f);
  EXPECT_TRUE(std::signbit(HalfToFloat(0x8000)));
  EXPECT_EQ(HalfToFloat(0x7c00), INFINITY);
  EXPECT_TRUE(std::isnan(HalfToFloat(0x7e00)));
}

}  // namespace
}  // namespace lab
