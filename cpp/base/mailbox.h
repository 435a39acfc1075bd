#pragma once

#include <atomic>
#include <iterator>
#include <utility>
#include <vector>

namespace openlora {

// Carries values from any threads to one, without a lock: a sender that stands still, a thread of idle priority say,
// holds nobody up.
template <typename T>
class Mailbox {
 public:
  Mailbox() = default;
  ~Mailbox() { TakeAll(); }
  Mailbox(const Mailbox&) = delete;
  Mailbox& operator=(const Mailbox&) = delete;

  void Push(T value) {
    Node* node = new Node{std::move(value), top_.load(std::memory_order_relaxed)};
    while (!top_.compare_exchange_weak(node->below, node, std::memory_order_release, std::memory_order_relaxed)) {
    }
  }
  // What has come since the last call, in its order.
  std::vector<T> TakeAll() {
    std::vector<T> values;
    Node* node = top_.exchange(nullptr, std::memory_order_acquire);
    while (node != nullptr) {
      values.push_back(std::move(node->value));
      delete std::exchange(node, node->below);
    }
    return {std::make_move_iterator(values.rbegin()), std::make_move_iterator(values.rend())};
  }

 private:
  struct Node {
    T value;
    Node* below;
  };
  std::atomic<Node*> top_{nullptr};
};

}  // namespace openlora
