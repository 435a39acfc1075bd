#pragma once

#include "kernels/sample.h"

// The last of the three kernels that sample.h describes, in a file of its own.

DEV_KERNEL(sample, Finish, Params)
