#pragma once
// What is asked of a file whatever its bytes are: an Error, or a model that can be used.
#include <gtest/gtest.h>

#include <optional>

#include "lab/error.h"
#include "model/qwen2.h"
#include "model/tokenizer.h"
#include "tests/test_util.h"
#include "tests/views_inside.h"

namespace lab::damaged_test {

using Bytes = std::vector<uint8_t>;
using Names = std::vector<std::string>;

// What a user of the model relies on.
inline void ExpectUsable(const Qwen2& model, const Tokenizer& tokenizer) {
  EXPECT_TRUE(ViewsInside(model));
  EXPECT_EQ(tokenizer.vocab(), model.config.vocab);
  for (const int32_t id : tokenizer.Encode("What is 2+2?<|im_end|>")) tokenizer.Decode(id);
}

// Why a file was refused, or nothing when it is a valid model. Any exception but Error is a
// failure.
inline std::optional<std::string> Refusal(FileBytes file) {
  try {
    const Qwen2 model = LoadQwen2(ReadWeightFile(std::move(file)));
    ExpectUsable(model, Tokenizer(*model.source));
    return std::nullopt;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), kUsage) << error.what();
    EXPECT_STRNE(error.what(), "");
    return error.what();
  } catch (const std::exception& error) {
    ADD_FAILURE() << typeid(error).name() << ": " << error.what();
    return error.what();
  }
}

}  // namespace lab::damaged_test
