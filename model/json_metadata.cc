#include "model/json_metadata.h"

#include <algorithm>
#include <deque>
#include <unordered_set>

#include "lab/error.h"
#include "lab/names.h"

namespace lab {
namespace {

using Json = nlohmann::json;

// What views in the metadata point into; deques, because their elements stay where they are.
struct Store {
  Json json;
  std::deque<std::string> texts;
  std::deque<std::vector<int64_t>> integers;
  std::deque<std::vector<double>> reals;
};

template <class T>
MetaArray NumberArray(GgufType element, const std::vector<T>& numbers) {
  return {element,
          numbers.size(),
          {reinterpret_cast<const uint8_t*>(numbers.data()), numbers.size() * sizeof(T)},
          {}};
}

bool IsI64(const Json& number) {
  return number.is_number_integer() &&
         (!number.is_number_unsigned() || number.get<uint64_t>() <= uint64_t{1} << 62);
}

MetaValue ArrayValue(Store& store, const Json& array) {
  const auto all = [&](auto&& is) { return std::all_of(array.begin(), array.end(), is); };
  if (all([](const Json& e) { return e.is_string(); })) {
    MetaArray strings = {GgufType::string, array.size(), {}, {}};
    strings.strings.reserve(array.size());
    for (const Json& e : array) strings.strings.push_back(e.get_ref<const std::string&>());
    return {strings};
  }
  if (all(IsI64)) {
    store.integers.push_back(array.get<std::vector<int64_t>>());
    return {NumberArray(GgufType::i64, store.integers.back())};
  }
  if (all([](const Json& e) { return e.is_number(); })) {
    store.reals.push_back(array.get<std::vector<double>>());
    return {NumberArray(GgufType::f64, store.reals.back())};
  }
  store.texts.push_back(array.dump());
  return {std::string_view(store.texts.back())};
}

void AddValues(WeightFileParts& parts, Store& store, const std::string& prefix, const Json& object,
               std::optional<size_t> offset) {
  for (const auto& [name, json] : object.items()) {
    if (json.is_null()) continue;
    if (json.is_object()) {
      AddValues(parts, store, prefix + name + ".", json, offset);
      continue;
    }
    MetaValue value;
    if (json.is_boolean()) value = {json.get<bool>()};
    if (json.is_number_unsigned()) value = {json.get<uint64_t>()};
    if (json.is_number_integer() && !json.is_number_unsigned()) value = {json.get<int64_t>()};
    if (json.is_number_float()) value = {json.get<double>()};
    if (json.is_string()) value = {std::string_view(json.get_ref<const std::string&>())};
    if (json.is_array()) value = ArrayValue(store, json);
    store.texts.push_back(prefix + name);
    parts.metadata.push_back({store.texts.back(), offset, std::move(value)});
  }
}

}  // namespace

Json ParseJsonObject(const std::string& what, std::string_view text) {
  constexpr int kDeepest = 32;
  std::unordered_set<std::string> seen;
  const auto look = [&](int depth, Json::parse_event_t event, Json& parsed) {
    if (depth > kDeepest) Fail("{}: nests deeper than {} levels", what, kDeepest);
    if (depth == 1 && event == Json::parse_event_t::key &&
        !seen.insert(parsed.get<std::string>()).second)
      Fail("{}: key '{}' appears twice", what, Printable(parsed.get<std::string>()));
    return true;
  };
  try {
    Json json = Json::parse(text, look);
    if (json.is_object()) return json;
  } catch (const Json::parse_error& error) {
    Fail("{}: not a JSON object: bad byte {}; the file is damaged", what, error.byte);
  } catch (const Json::exception& error) {  // a number beyond double
    Fail("{}: not a JSON object: {}", what, Printable(error.what()));
  }
  Fail("{}: not a JSON object", what);
}

void AddJsonMetadata(WeightFileParts& parts, std::string_view prefix, Json json,
                     std::optional<size_t> offset) {
  const auto store = std::make_shared<Store>();
  store->json = std::move(json);
  AddValues(parts, *store, std::string(prefix), store->json, offset);
  parts.owners.push_back(store);
}

void AddStrings(WeightFileParts& parts, const std::string& key, std::vector<std::string> strings) {
  AddJsonMetadata(parts, "", Json::object({{key, std::move(strings)}}), std::nullopt);
}

void AddIntegers(WeightFileParts& parts, const std::string& key, std::vector<int64_t> integers) {
  AddJsonMetadata(parts, "", Json::object({{key, std::move(integers)}}), std::nullopt);
}

}  // namespace lab
