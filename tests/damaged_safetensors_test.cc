// Files that lie: safetensors.
#include "lab/safetensors.h"
#include "tests/gguf_pieces.h"

namespace lab::damaged_test {
namespace {

// Header and data of two tensors, 200 bytes.
std::string SmallSafetensors(const TempDir& dir) {
  const float values[6] = {1, 2, 3, 4, 5, 6};
  const std::span<const uint8_t> bytes(reinterpret_cast<const uint8_t*>(values), sizeof values);
  const SafetensorsEntry entries[] = {{"a", "F32", {2, 3}, bytes},
                                      {"b", "F32", {2}, bytes.subspan(0, 8)}};
  OutputFile out(dir / "good");
  WriteSafetensors(out, entries, {{"model", "m"}});
  out.Commit();
  return ReadBytes(dir / "good");
}

bool IsSafetensors(const std::string& path) {
  try {
    const Safetensors file(path);
    for (const SafetensorsEntry& entry : file.entries())
      if (entry.dtype == "F32")
        for (size_t i = 0; i < entry.elements(); ++i) entry.At(i);
    return true;
  } catch (const Error& error) {
    EXPECT_TRUE(std::string_view(error.what()).starts_with(path)) << error.what();
    return false;
  }
}

TEST(DamagedSafetensors, CutOrChangedAnywhere) {
  TempDir dir;
  const std::string good = SmallSafetensors(dir);
  EXPECT_TRUE(IsSafetensors(dir / "good"));
  size_t refused = 0;
  for (size_t i = 0; i < good.size(); ++i) {
    EXPECT_FALSE(IsSafetensors(WriteBytes(dir / "cut", good.substr(0, i)))) << i;
    for (const int change : {0xff, 1 << i % 8}) {
      std::string changed = good;
      changed[i] = static_cast<char>(changed[i] ^ change);
      refused += !IsSafetensors(WriteBytes(dir / "changed", changed));
    }
  }
  EXPECT_GT(refused, good.size());
}

TEST(DamagedSafetensors, HeadersThatLie) {
  TempDir dir;
  const auto file = [](std::string header) { return Raw(uint64_t{header.size()}) + header; };
  const auto entry = [&](const std::string& dtype, const std::string& shape,
                         const std::string& range) {
    return file(R"({"t":{"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" +
                range + "}}") +
           std::string(24, 'x');
  };
  const struct {
    std::string bytes, said;
  } cases[] = {{"", "empty"},
               {"1234567", "does not fit"},
               {Raw(~uint64_t{0}) + "{}", "does not fit"},
               {Raw(uint64_t{3}) + "{}", "does not fit"},
               {file("[]"), "not a JSON object"},
               {file("{"), "not a JSON object"},
               {file(R"({"t":1})"), "'t': dtype, shape or data_offsets is missing"},
               {entry("F8", "[6]", "[0,24]"), "unknown dtype"},
               {entry("F32", "6", "[0,24]"), "shape is not a list"},
               {entry("F32", "[-6]", "[0,24]"), "no size"},
               {entry("F32", "[6.0]", "[0,24]"), "no size"},
               {entry("F32", "[4294967296,4294967296]", "[0,0]"), "impossibly large"},
               {entry("F32", "[6]", "[0]"), "not a pair"},
               {entry("F32", "[6]", "[0,24.0]"), "not a pair"},
               {entry("F32", "[6]", "[-4,20]"), "not a pair"},
               {entry("F32", "[5]", "[0,24]"), "disagree"},
               {entry("F32", "[7]", "[0,28]"), "disagree"},
               {entry("F32", "[7]", "[0,24]"), "disagree"},
               {entry("F64", "[6]", "[0,24]"), "disagree"},
               {entry("F32", "[6]", "[24,0]"), "disagree"}};
  EXPECT_TRUE(IsSafetensors(WriteBytes(dir / "f", entry("F32", "[6]", "[0,24]"))));
  for (const auto& c : cases) {
    SCOPED_TRACE(c.bytes);
    try {
      Safetensors unused(WriteBytes(dir / "f", c.bytes));
      ADD_FAILURE() << "taken for valid";
    } catch (const Error& error) {
      EXPECT_NE(std::string_view(error.what()).find(c.said), std::string_view::npos)
          << error.what();
    }
  }
}

}  // namespace
}  // namespace lab::damaged_test
