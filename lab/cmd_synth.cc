// lab synth: a synthetic model as a file.
#include "lab/cli.h"
#include "lab/error.h"
#include "lab/output.h"
#include "model/synth.h"

namespace lab {

int CmdSynth(int argc, char** argv) {
  std::string shape, out_path;
  CLI::App app(
      "Writes a synthetic model (true structure, random weights from a fixed seed) as GGUF.",
      "lab synth");
  app.add_option("shape", shape, SynthShapeNames())->required()->type_name("SHAPE");
  app.add_option("-o,--output", out_path, "the file to write")->required()->type_name("FILE");
  app.footer("Example:\n  lab synth tiny -o tiny.gguf");
  if (!ParseArgs(app, argc, argv)) return kPass;
  if (!IsSynthShape(shape)) MakeSynthGguf(shape);  // throws, before any file is made
  OutputFile out(out_path);
  const std::vector<uint8_t> bytes = MakeSynthGguf(shape);
  out.Write({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  out.Commit();
  PrintErr(fmt::format("lab: {}: {} bytes\n", out_path, bytes.size()));
  return kPass;
}

}  // namespace lab
