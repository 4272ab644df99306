#include "lab/gzip.h"

#include <zlib.h>

#include <algorithm>

#include "lab/error.h"

namespace lab {
namespace {

constexpr size_t kChunk = size_t{1} << 16;  // fits zlib's 32-bit counts, as do the pieces of a file

class Inflater {
 public:
  explicit Inflater(const std::string& path) {
    constexpr int kGzipOnly = 15 + 16;
    if (inflateInit2(&z_, kGzipOnly) != Z_OK) Fail("{}: zlib cannot start", path);
  }
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;
  ~Inflater() { inflateEnd(&z_); }
  z_stream& operator*() { return z_; }

 private:
  z_stream z_ = {};
};

}  // namespace

bool IsGzip(std::span<const uint8_t> bytes) {
  return bytes.size() > 2 && bytes[0] == 0x1f && bytes[1] == 0x8b && bytes[2] == 8;
}

std::vector<uint8_t> Unzip(const std::string& path, std::span<const uint8_t> bytes, size_t most) {
  Inflater inflater(path);
  z_stream& z = *inflater;
  std::vector<uint8_t> out, chunk(kChunk);
  size_t read = 0;
  for (int status = Z_OK; status != Z_STREAM_END || read < bytes.size();) {
    if (status == Z_STREAM_END && inflateReset(&z) != Z_OK) Fail("{}: zlib cannot go on", path);
    z.next_in = const_cast<uint8_t*>(bytes.data() + read);
    z.avail_in = static_cast<uInt>(std::min(bytes.size() - read, kChunk));
    z.next_out = chunk.data();
    z.avail_out = kChunk;
    status = inflate(&z, Z_NO_FLUSH);
    read = static_cast<size_t>(z.next_in - bytes.data());
    out.insert(out.end(), chunk.data(), z.next_out);
    if (out.size() > most)
      Fail("{}: unpacks to more than {} bytes, the most that lab takes; unpack it first", path,
           most);
    if (status == Z_BUF_ERROR || (status == Z_OK && read == bytes.size() && z.avail_out > 0))
      Fail("{}: the gzip file is cut off after {} unpacked bytes", path, out.size());
    if (status != Z_OK && status != Z_STREAM_END)
      Fail("{}: offset {}: the gzip file is damaged", path, read);
  }
  if (out.empty()) Fail("{}: the file is empty once unpacked", path);
  return out;
}

}  // namespace lab
