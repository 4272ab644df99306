#pragma once

namespace lab {

/// Where this build has its program and its data. Defined in one file, which is compiled anew for
/// another checkout; the compiler cache knows the others.
extern const char* const kLabBinary;       ///< build/PRESET/lab
extern const char* const kCasesDir;        ///< cases
extern const char* const kGoldenDir;       ///< tests/golden
extern const char* const kCorpusDir;       ///< tests/fuzz/corpus
extern const char* const kTranscriptsDir;  ///< tests/transcripts

}  // namespace lab
