#include "lab/sha256.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <climits>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "lab/cache_dir.h"
#include "lab/error.h"
#include "lab/output.h"

namespace lab {
namespace {

using Json = nlohmann::json;

Json ReadMemory(const std::string& path) {
  std::ifstream in(path);
  const Json memory = in ? Json::parse(in, nullptr, /*allow_exceptions=*/false) : Json();
  return memory.is_object() ? memory : Json::object();
}

}  // namespace

std::string Sha256(std::span<const uint8_t> bytes) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int n = 0;
  if (EVP_Digest(bytes.data(), bytes.size(), digest, &n, EVP_sha256(), nullptr) != 1)
    throw Error(kInternal, "OpenSSL cannot compute a sha256");
  std::string hex;
  for (unsigned int i = 0; i < n; ++i) hex += fmt::format("{:02x}", digest[i]);
  return hex;
}

std::string Sha256OfFile(const FileBytes& file) {
  if (!file.is_file()) return "";
  const struct stat& st = file.status();
  char real[PATH_MAX];
  if (!realpath(file.name().c_str(), real)) return Sha256(file.bytes());
  const std::string memory_path = CacheDir() + "/sha256.json";
  const Json identity = {
      static_cast<uint64_t>(st.st_size),       static_cast<uint64_t>(st.st_ino),
      static_cast<int64_t>(st.st_mtim.tv_sec), static_cast<int64_t>(st.st_mtim.tv_nsec),
      static_cast<int64_t>(st.st_ctim.tv_sec), static_cast<int64_t>(st.st_ctim.tv_nsec)};
  Json memory = ReadMemory(memory_path);
  const Json known = memory.value(real, Json::object());
  if (known.is_object() && known.value("file", Json()) == identity &&
      known.value("sha256", Json()).is_string())
    return known["sha256"];

  const std::string hash = Sha256(file.bytes());
  memory[real] = {{"file", identity}, {"sha256", hash}};
  std::error_code ignored;
  std::filesystem::create_directories(CacheDir(), ignored);
  try {
    OutputFile out(memory_path);
    out.Write(memory.dump(1, ' ', false, Json::error_handler_t::replace) + "\n");
    out.Commit();
  } catch (const Error&) {
    // A cache folder that is missing or read-only costs a second next time, nothing else.
  }
  return hash;
}

}  // namespace lab
