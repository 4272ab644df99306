// The CUDA kernels on the host: every row on every committed case, in several orders of warps.
#include <gtest/gtest.h>

#include <cstdlib>

#include "lab/capture.h"
#include "lab/device.h"
#include "lab/judge.h"

namespace lab {
namespace {

bool Built(const Row& row) {
  return row.backend == Backend::cuda_host && WhyNotHere(row).empty();
}

// 3, or what LAB_SIMT_ORDERS says.
int Orders() {
  const char* text = std::getenv("LAB_SIMT_ORDERS");
  return text ? std::max(1, std::atoi(text)) : 3;
}

TEST(CudaHost, EveryRowPassesEveryCaseInEveryOrder) {
  size_t judged = 0;
  for (const Case& c : ReadCases(LAB_CASES_DIR)) {
    Oracles oracles(c);
    for (const Row& row : Rows()) {
      if (row.op != c.op || !Built(row)) continue;
      for (const bool half_kv : {false, true}) {
        if (half_kv && row.op != Op::gqa_attention) continue;
        // Each run has another order and must give the same bits.
        const Verdict v = JudgeRow(c, {&row}, oracles.Of(row.contract, half_kv), half_kv, 1,
                                   Orders(), LanesOf(row));
        EXPECT_EQ(v.status, Status::pass) << row.function << " on " << c.name << ": " << v.why;
        ++judged;
      }
    }
  }
  if (judged == 0) GTEST_SKIP() << "built without LAB_CUDA_HOST";
  EXPECT_GT(judged, 400u);
}

// A line of kernels.def for every description that the SIMD backend has.
TEST(CudaHost, TheCudaBackendIsComplete) {
  for (const Row& row : Rows())
    if (row.backend == Backend::hwy) {
      EXPECT_NE(FindRow(row.op, row.contract, Backend::cuda), nullptr) << row.function;
      EXPECT_NE(FindRow(row.op, row.contract, Backend::cuda_host), nullptr) << row.function;
    }
}

TEST(Device, KernelsRunOnTheSameMajorOrAbove) {
  constexpr int kBuilt[] = {75, 86, 90};
  for (const int sm : {75, 86, 89, 90, 100, 120}) EXPECT_TRUE(RunsOn(sm, kBuilt)) << sm;
  for (const int sm : {70, 72, 80}) EXPECT_FALSE(RunsOn(sm, kBuilt)) << sm;
}

}  // namespace
}  // namespace lab
