#include "tests/paths.h"

namespace lab {

const char* const kLabBinary = LAB_BINARY;
const char* const kCasesDir = LAB_SOURCE_DIR "/cases";
const char* const kGoldenDir = LAB_SOURCE_DIR "/tests/golden";
const char* const kCorpusDir = LAB_SOURCE_DIR "/tests/fuzz/corpus";
const char* const kTranscriptsDir = LAB_SOURCE_DIR "/tests/transcripts";

}  // namespace lab
