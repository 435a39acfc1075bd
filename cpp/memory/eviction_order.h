#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <set>

#include "memory/frame_pool.h"

namespace openlora {

struct Adapter;
struct PrefixBlock;

// One thing that may go: an adapter, or a block of the prefix index. Who owns it tells EvictionOrder what happens to
// it.
struct Evictable {
  Adapter* adapter = nullptr;  // one of the two
  PrefixBlock* block = nullptr;
  double cost = 0;  // log2 of what getting it again takes, in bytes read, for each byte that it holds
  double heat = -std::numeric_limits<double>::infinity();     // log2 of its uses, each as 2^(its time in half-lives)
  double left_at = -std::numeric_limits<double>::infinity();  // turnovers; while it has no frames
  uint64_t number = 0;                                        // of equals the one that is known longest goes first
  int32_t uses = 0;                                           // in this stay
  bool is_fresh = false;  // nobody but the first has used it in this stay, nor shortly before it
  bool is_listed = false;

  bool is_adapter() const { return adapter != nullptr; }
};

// Cost of an adapter that holds `bytes`: it is read again, which takes some time however small it is.
double AdapterCost(int64_t bytes);
// Cost of a block of `tokens` tokens that holds `bytes`: they are computed again, at `operations` (additions and
// multiplications) each. Reading and computing are compared by one fixed ratio: a machine whose disk is four times
// faster beside its cores moves one kind against the other by two half-lives.
double BlockCost(int32_t tokens, double operations, int64_t bytes);

// The share of new objects that are used again, of one kind: what a use of something new is worth, since nobody can
// know whether there will be another. Begins low; exponentially forgetting.
class ReuseOdds {
 public:
  void Found() { Count(1, 0); }
  void Lost() { Count(0, 1); }
  // What was counted as lost would have been used again.
  void Regret() { Count(1, -1); }
  double log2() const { return log2_; }

 private:
  void Count(double found, double lost);

  double found_ = 1;
  double lost_ = 127;
  double log2_ = -7;
};

// What may go now, the least worth first: resident adapters without a pin, blocks that no sequence holds and no block
// continues.
//
//   worth = uses, halved with every half-life that has passed since × cost of getting it again / bytes that it holds
//         × the odds that it is used again at all, while it is new
//
// Things that decay alike keep their order while nobody touches them (LRFU: Lee et al. 2001, IEEE Trans. Computers
// 50(12)); cost over bytes is GreedyDual-Size-Frequency's (Cherkasova 1998); that the new has to prove itself, and that
// what went too early is remembered for a while, is 2Q's (Johnson & Shasha 1994). Of an adapter all uses count: many
// requests name it. Of a block the last one counts: a chat comes back some times and then never, however often it did.
// Time is turnovers of the pool, frames handed out by frames there are: decay keeps pace with pressure. A call takes
// O(log n). Engine thread only.
class EvictionOrder {
 public:
  // By worth within one list, where the odds are the same.
  struct Less {
    bool operator()(const Evictable* a, const Evictable* b) const {
      const double worth_a = a->heat + a->cost, worth_b = b->heat + b->cost;
      return worth_a != worth_b ? worth_a < worth_b : a->number < b->number;
    }
  };
  using List = std::set<Evictable*, Less>;
  static constexpr size_t kLists = 4;  // adapters and blocks, each of them new ones and proven ones

  explicit EvictionOrder(const FramePool* pool) : pool_(pool) {}

  // It gets frames. `is_known`: it went shortly before; is_fresh says whether it had been lost as new.
  void Enter(Evictable* object, bool is_known);
  // A request uses it.
  void Use(Evictable* object);
  // Its frames go.
  void Leave(Evictable* object);
  // It may go from now on, or not any more.
  void Add(Evictable* object);
  void Remove(Evictable* object);

  // Turnovers of the pool so far. What went less than one ago is known.
  double now() const;
  bool WentLately(const Evictable& object) const { return now() - object.left_at < 1; }
  double WorthOf(const Evictable& object) const;
  bool GoesBefore(const Evictable& a, const Evictable& b) const;
  const std::array<List, kLists>& lists() const { return lists_; }
  // Of adapters that may go.
  int64_t adapter_frames() const { return adapter_frames_; }

 private:
  static size_t ListOf(const Evictable& object) { return (object.is_adapter() ? 0 : 2) + (object.is_fresh ? 1 : 0); }
  ReuseOdds& OddsOf(const Evictable& object) { return odds_[object.is_adapter() ? 0 : 1]; }

  const FramePool* pool_;
  std::array<List, kLists> lists_;
  std::array<ReuseOdds, 2> odds_;  // of adapters and of blocks
  int64_t adapter_frames_ = 0;
  uint64_t numbers_ = 0;
};

}  // namespace openlora
