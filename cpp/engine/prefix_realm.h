#pragma once

#include <string>

#include "engine/sequence.h"

namespace openlora {

// All that a sequence's KV depends on beside its tokens, and who may share it, as one string; two that are equal mean
// the same. Adapters go by generation and weight, in the request's order: another adapter of the same name is another
// realm, the same content registered again is the same. Who may share: those with the same salt; else those of the same
// tenant without a salt; else all that have neither.
std::string PrefixRealm(const Sequence& sequence);

}  // namespace openlora
