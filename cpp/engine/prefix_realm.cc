#include "engine/prefix_realm.h"

#include <cstring>

#include "base/plant.h"

namespace openlora {
namespace {

// Of fixed size, or with the size before it: nothing can be read in two ways.
template <typename Value>
void Append(const Value& value, std::string* realm) {
  char bytes[sizeof(Value)];
  std::memcpy(bytes, &value, sizeof(Value));
  realm->append(bytes, sizeof(Value));
}

void AppendText(const std::string& text, std::string* realm) {
  Append(text.size(), realm);
  realm->append(text);
}

}  // namespace

std::string PrefixRealm(const Sequence& sequence) {
  std::string realm;
  const Request& request = sequence.request;
  const bool is_salted = !request.cache_salt.empty();
  realm.push_back(sequence.is_long ? 'l' : 's');
  realm.push_back(is_salted ? 'c' : 't');
  AppendText(is_salted ? request.cache_salt : request.tenant, &realm);
  for (size_t i = 0; i < sequence.adapters.size(); ++i) {
    const AdapterContent& content = sequence.adapters[i]->content;
    Append(IsPlanted(Plant::kPrefixByName) ? content.key : content.generation, &realm);
    Append(request.adapters[i].weight, &realm);
  }
  return realm;
}

}  // namespace openlora
