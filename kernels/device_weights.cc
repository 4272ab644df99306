#include "kernels/device_weights.h"

#include <cstring>

namespace lab {

std::vector<uint8_t> DeviceLayout(const WeightView& w) {
  const BlockFields fields = FieldsOnDevice(w.type);
  if (fields.field[0].bytes == 0) return {};
  std::vector<uint8_t> planes(w.bytes());
  const size_t block = InfoOf(w.type).bytes;
  uint8_t* to = planes.data();
  for (const BlockField& field : fields.field)
    for (size_t at = 0; field.bytes > 0 && at < w.bytes(); at += block, to += field.bytes)
      std::memcpy(to, w.data + at + field.offset, field.bytes);
  return planes;
}

}  // namespace lab
