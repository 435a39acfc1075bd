#pragma once

namespace openlora::dev {

// Of a launch: blocks and threads in one dimension.
struct Shape {
  int blocks = 1;
  int threads = 32;  // of a block; a multiple of 32
  int shared_bytes = 0;
  bool is_cooperative = false;  // all blocks run at once: for kernels with a barrier of the grid
};

}  // namespace openlora::dev
