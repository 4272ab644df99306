// A case file reads its data file beside itself, and nothing else.
#include "lab/case.h"
#include "lab/error.h"
#include "tests/test_util.h"

namespace lab {
namespace {

std::string RefusalOfData(const TempDir& dir, const std::string& data) {
  try {
    ReadCaseFile(WriteBytes(dir / "c.toml", "schema = 1\ndata = '" + data + "'\n"));
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(CasePaths, DataLiesBesideTheCaseFileItself) {
  TempDir dir;
  const std::string data = std::string(1, 2) + std::string(7, '\0') + "{}";
  std::filesystem::create_directory(dir / "sub");
  WriteBytes(dir / "sub/elsewhere.safetensors", data);
  WriteBytes(dir / "here.safetensors", data);
  std::filesystem::create_symlink(dir / "sub/elsewhere.safetensors", dir / "link.safetensors");
  EXPECT_NE(RefusalOfData(dir, "here.safetensors").find("no [[case]]"), std::string::npos);
  for (const std::string& path :
       {std::string("../here.safetensors"), std::string("sub/elsewhere.safetensors"),
        dir / "here.safetensors", std::string(".."), std::string(".hidden"), std::string()})
    EXPECT_NE(RefusalOfData(dir, path).find("in the same folder"), std::string::npos) << path;
  EXPECT_NE(RefusalOfData(dir, "link.safetensors").find("symbolic link"), std::string::npos);
}

}  // namespace
}  // namespace lab
