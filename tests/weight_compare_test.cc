// How a byte of a tensor is described.
#include "lab/weight_compare.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <map>

namespace lab {
namespace {

// "d 2, qs 16": the fields of a block and how many bytes lie in each.
std::string FieldsOf(const WeightTensor& t) {
  std::vector<std::pair<std::string, int>> fields;
  for (uint64_t byte = 0; byte < t.block->bytes; ++byte) {
    const std::string text = DescribeByte(t, byte);
    const std::string field = text.substr(text.find('(', text.find("byte")) + 1);
    if (fields.empty() || fields.back().first != field) fields.emplace_back(field, 0);
    ++fields.back().second;
  }
  std::vector<std::string> parts;
  for (const auto& [name, bytes] : fields)
    parts.push_back(fmt::format("{} {}", name.substr(0, name.size() - 1), bytes));
  return fmt::format("{}", fmt::join(parts, ", "));
}

// The layouts of ggml-common.h.
TEST(DescribeByte, NamesTheFieldOfEveryByte) {
  const std::map<BlockType, std::string> layouts = {
      {BlockType::Q4_0, "d 2, qs 16"},
      {BlockType::Q5_0, "d 2, qh 4, qs 16"},
      {BlockType::Q8_0, "d 2, qs 32"},
      {BlockType::Q4_K, "d 2, dmin 2, scales 12, qs 128"},
      {BlockType::Q5_K, "d 2, dmin 2, scales 12, qh 32, qs 128"},
      {BlockType::Q6_K, "ql 128, qh 64, scales 16, d 2"}};
  for (const BlockTypeInfo& type : kBlockTypes) {
    if (type.elements == 1) continue;
    WeightTensor t;
    t.SetGgufType(static_cast<uint32_t>(type.type));
    t.dims[0] = 2 * type.elements;
    ASSERT_TRUE(layouts.count(type.type)) << type.name;
    EXPECT_EQ(FieldsOf(t), layouts.at(type.type)) << type.name;
  }
}

TEST(DescribeByte, CountsRowsAndBlocks) {
  WeightTensor t;
  t.SetGgufType(static_cast<uint32_t>(BlockType::Q6_K));
  t.dims = {768, 4, 1, 1};
  EXPECT_EQ(DescribeByte(t, 2 * 630 + 210 + 127),
            "row 2, block 1 (columns 256 to 511), byte 127 (ql)");
  t.SetGgufType(static_cast<uint32_t>(BlockType::F32));
  EXPECT_EQ(DescribeByte(t, 4 * (768 + 3) + 2), "row 1, column 3, byte 2");
}

}  // namespace
}  // namespace lab
