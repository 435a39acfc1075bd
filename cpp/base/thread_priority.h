#pragma once

namespace openlora {

// The calling thread runs only where nobody else wants the processor, from now on: there is no way back without
// privileges. Such a thread may stand still for a long time, so it must hold no lock that others wait for.
void MakeThreadIdle();

}  // namespace openlora
