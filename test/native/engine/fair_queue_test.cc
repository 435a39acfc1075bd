#include "engine/fair_queue.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

namespace openlora {
namespace {

class FairQueueTest : public testing::Test {
 protected:
  // `adapter` 0: the base alone.
  Sequence* Add(const std::string& tenant, int64_t adapter = 0, int32_t priority = 0) {
    auto sequence = std::make_unique<Sequence>();
    sequence->arrival = sequences_.size();
    sequence->request.tenant = tenant;
    sequence->request.priority = priority;
    if (adapter != 0) {
      std::unique_ptr<Adapter>& named = adapters_[adapter];
      if (named == nullptr) named = std::make_unique<Adapter>();
      named->handle = adapter;
      sequence->adapters = {named.get()};
    }
    sequences_.push_back(std::move(sequence));
    queue_.Add(sequences_.back().get());
    return sequences_.back().get();
  }
  // As the scheduler does it for one that gets rows and is served `cost` at once.
  void Serve(Sequence* sequence, double cost, TurnOf turn_of = TurnOf::kFlow) {
    sequence->turn_of = turn_of;
    queue_.Admit(sequence);
    sequence->is_admitted = true;
    queue_.Charge(*sequence, cost);
    queue_.Settle();
  }
  // The first `count` in order, each charged `cost`: tenant names and adapters' handles.
  std::string Order(int count, double cost) {
    FairQueue::Visit visit(queue_);
    std::string order;
    for (int i = 0; i < count; ++i) {
      const Sequence* sequence = visit.Next();
      if (sequence == nullptr) return order + "end";
      order += sequence->request.tenant;
      if (!sequence->adapters.empty()) order += std::to_string(sequence->adapters[0]->handle);
      order += ' ';
      visit.Charge(cost);
    }
    return order;
  }

  FairQueue queue_;
  std::vector<std::unique_ptr<Sequence>> sequences_;
  std::map<int64_t, std::unique_ptr<Adapter>> adapters_;
};

TEST_F(FairQueueTest, TenantsTakeTurnsHoweverManyRequestsOneHas) {
  for (int i = 0; i < 5; ++i) Add("a");
  Add("b");
  Add("b");
  EXPECT_EQ(Order(9, 10), "a b a b a a a end");
}

TEST_F(FairQueueTest, WithoutATenantRequestsGoFirstComeFirstServed) {
  std::vector<Sequence*> added;
  for (int i = 0; i < 6; ++i) added.push_back(Add(""));
  FairQueue::Visit visit(queue_);
  for (const Sequence* expected : added) {
    EXPECT_EQ(visit.Next(), expected);
    visit.Charge(3);
  }
  EXPECT_EQ(visit.Next(), nullptr);
}

TEST_F(FairQueueTest, AVisitChangesNothing) {
  Add("a", 1);
  Add("a", 2);
  Add("b", 3);
  const std::string once = Order(3, 7);
  EXPECT_EQ(Order(3, 7), once);
}

TEST_F(FairQueueTest, WhoeverHadLessServiceGoesFirst) {
  Serve(Add("a"), 100);
  Serve(Add("b"), 60);
  Add("a");
  Add("b");
  Add("b");
  Add("b");
  EXPECT_EQ(Order(4, 20), "b b a b ");
}

TEST_F(FairQueueTest, AdaptersOfATenantTakeTurns) {
  for (int i = 0; i < 3; ++i) Add("a", 1);
  Add("a", 2);
  Add("a");
  EXPECT_EQ(Order(5, 5), "a1 a2 a a1 a1 ");
}

TEST_F(FairQueueTest, PriorityCountsWithinATenantAndBeforeItsAdapters) {
  Add("a", 1, 0);
  Add("a", 1, 5);
  Add("a", 2, 9);
  Add("b", 3, -7);
  EXPECT_EQ(Order(4, 5), "a2 b3 a1 a1 ");
}

TEST_F(FairQueueTest, OfEightAdmissionsOneIsForWhoeverHasWaitedLongest) {
  Sequence* old = Add("a", 1, -9);
  for (int i = 0; i < 20; ++i) Add("a", 2, 9);
  EXPECT_EQ(Order(10, 5), "a2 a2 a2 a2 a2 a2 a2 a1 a2 a2 ");
  for (int i = 0; i < 7; ++i) Serve(Add("b"), 1);
  EXPECT_EQ(Order(2, 5), "a2 a2 ");  // those of others don't count
  for (int i = 0; i < 7; ++i) Serve(sequences_[static_cast<size_t>(1 + i)].get(), 1);
  EXPECT_EQ(Order(2, 5), "a1 a2 ");
  old->is_paused = true;
  EXPECT_EQ(Order(2, 5), "a2 a2 ");
}

TEST_F(FairQueueTest, NewcomersWithoutEndKeepNobodyWaiting) {
  Serve(Add("busy"), 1000);
  Sequence* waiting = Add("busy");
  int admissions = 0;
  for (bool is_served = false; !is_served; ++admissions) {
    ASSERT_LE(admissions, 8 * 3);  // for each of two tenants that wait, and the one before
    Add("newcomer" + std::to_string(admissions));
    Sequence* next = FairQueue::Visit(queue_).Next();
    is_served = next == waiting;
    Serve(next, 1);
  }
}

// It is owed: others are admitted meanwhile.
TEST_F(FairQueueTest, TheTurnOfATenantsOldestIsntLostWhereItHasToWaitForALoad) {
  Sequence* old = Add("a", 1, -9);
  std::vector<Sequence*> others;
  for (int i = 0; i < 30; ++i) others.push_back(Add("a", 2, 9));
  for (int i = 0; i < 7; ++i) Serve(others[static_cast<size_t>(i)], 1);
  for (int i = 7; i < 12; ++i) {
    FairQueue::Visit visit(queue_);
    ASSERT_EQ(visit.Next(), old);
    EXPECT_EQ(visit.turn_of(), TurnOf::kTenant);
    visit.SkipFlow();
    ASSERT_EQ(visit.Next(), others[static_cast<size_t>(i)]);
    EXPECT_EQ(visit.turn_of(), TurnOf::kFlow);
    visit.Charge(1);
    Serve(others[static_cast<size_t>(i)], 1);
  }
  Serve(old, 1, TurnOf::kTenant);
  EXPECT_EQ(Order(1, 1), "a2 ");
}

// Nor is that of whoever comes after it: who waits for a reader is passed.
TEST_F(FairQueueTest, WhoWaitsForAReaderHoldsUpNoTurn) {
  Serve(Add("busy"), 1000);
  Add("busy")->is_paused = true;
  Sequence* waiting = Add("busy");
  int turns = 0;
  for (int admissions = 0; admissions < 200; ++admissions) {
    if (queue_.waiting() < 3) Add("newcomer" + std::to_string(admissions));
    Sequence* next = nullptr;
    TurnOf turn_of = TurnOf::kNobody;
    {
      FairQueue::Visit visit(queue_);
      next = visit.Next();
      turn_of = visit.turn_of();
    }
    if (turn_of == TurnOf::kOldest) {
      EXPECT_EQ(next, waiting);
      waiting = Add("busy");
      ++turns;
    }
    Serve(next, 1, turn_of);
  }
  EXPECT_GE(turns, 200 / (8 * 3) - 1);
  EXPECT_LE(turns, 200 / (8 * 2));
}

TEST_F(FairQueueTest, WhoeverWasTakenBackGoesFirstInTheOrderOfArrival) {
  Add("a");
  Sequence* c = Add("c");
  Sequence* b = Add("b");
  queue_.PutFirst(b);
  queue_.PutFirst(c);
  EXPECT_EQ(Order(4, 5), "c b a end");
  Serve(c, 1);
  EXPECT_EQ(Order(3, 5), "b a end");
}

TEST_F(FairQueueTest, NobodySavesUpServiceWhileIdle) {
  Sequence* idle = Add("b");
  Serve(idle, 1);
  queue_.Remove(idle);
  for (int i = 0; i < 103; ++i) {
    Sequence* sequence = Add("a");
    Serve(sequence, 10);
    queue_.Remove(sequence);
  }
  for (int i = 0; i < 3; ++i) Add("a");
  for (int i = 0; i < 3; ++i) Add("b");
  // Both start where a is.
  EXPECT_EQ(Order(6, 10), "a b a b a b ");
}

TEST_F(FairQueueTest, TenantsWithEqualServiceGoInTheOrderInWhichTheyCameBack) {
  Sequence* first = Add("a");
  Sequence* second = Add("b");
  Serve(first, 10);
  Serve(second, 10);
  Serve(Add("c"), 5);
  Serve(Add("d"), 20);
  Serve(Add("d"), 1);  // all others have had less than where it began
  Add("c");
  Add("b");
  Add("a");
  EXPECT_EQ(Order(3, 1), "c b a ");
}

TEST_F(FairQueueTest, TheTurnOfWhoeverWaitedLongestPutsNoNewcomerBehindOthers) {
  Serve(Add("flood", 1), 100);
  Sequence* oldest = Add("flood", 1);
  Serve(Add("slow"), 10);
  Add("slow");
  Serve(oldest, 50, TurnOf::kOldest);
  Add("new");
  EXPECT_EQ(Order(2, 10), "new slow ");
  // Nor an adapter of the tenant.
  Serve(Add("many", 2), 500);
  Sequence* its_oldest = Add("many", 2);
  Serve(Add("many", 3), 10);
  Add("many", 3);
  Serve(its_oldest, 50, TurnOf::kTenant);
  Add("many", 4);
  EXPECT_EQ(Order(5, 1), "new slow many4 many3 end");
}

TEST_F(FairQueueTest, IdleTenantsAndAdaptersAreForgotten) {
  for (int i = 0; i < 10'000; ++i) {
    Sequence* sequence = Add(std::to_string(i), i + 1);
    Serve(sequence, 1);
    queue_.Remove(sequence);
  }
  EXPECT_EQ(queue_.tenants(), 0);
  EXPECT_EQ(queue_.waiting(), 0);
  EXPECT_LT(queue_.tenants_known(), 200);
}

TEST_F(FairQueueTest, CountsWhatATenantHas) {
  Sequence* first = Add("a");
  Add("a", 3);
  EXPECT_EQ(queue_.SequencesOf("a"), 2);
  EXPECT_EQ(queue_.SequencesOf("b"), 0);
  EXPECT_EQ(queue_.tenants(), 1);
  Serve(first, 1);
  EXPECT_EQ(queue_.SequencesOf("a"), 2);
  EXPECT_EQ(queue_.waiting(), 1);
  queue_.Remove(first);
  EXPECT_EQ(queue_.SequencesOf("a"), 1);
}

}  // namespace
}  // namespace openlora
