#include <algorithm>
#include <cstring>
#include <utility>

#include "sim/machine_state.h"

namespace openlora::cuda_sim {
namespace {

void Join(std::vector<uint32_t>& into, const std::vector<uint32_t>& from) {
  into.resize(std::max(into.size(), from.size()), 0);
  for (size_t i = 0; i < from.size(); ++i) into[i] = std::max(into[i], from[i]);
}

void SetAtLeast(std::vector<uint32_t>& clock, int stream, uint32_t time) {
  const auto at = static_cast<size_t>(stream);
  if (clock.size() <= at) clock.resize(at + 1, 0);
  clock[at] = std::max(clock[at], time);
}

void Enqueue(MachineState& machine, int to, std::function<void()> run) {
  Stream& stream = machine.streams[static_cast<size_t>(to)];
  Join(stream.clock, machine.host_clock);
  Work work{
      .number = ++machine.works, .stream = to, .time = ++stream.enqueued, .clock = stream.clock, .run = std::move(run)};
  SetAtLeast(stream.clock, to, work.time);
  stream.waiting.push_back(std::move(work));
}

void RunFront(MachineState& machine, int of);

// All that a clock says is done.
void RunUntil(MachineState& machine, const std::vector<uint32_t>& clock) {
  for (size_t s = 0; s < clock.size(); ++s)
    while (machine.streams[s].done < clock[s]) RunFront(machine, static_cast<int>(s));
}

// The front of a stream, after all that is ordered before it.
void RunFront(MachineState& machine, int of) {
  const std::vector<uint32_t> before = machine.streams[static_cast<size_t>(of)].waiting.front().clock;
  RunUntil(machine, before);
  Stream& stream = machine.streams[static_cast<size_t>(of)];
  const Work work = std::move(stream.waiting.front());
  stream.waiting.pop_front();
  stream.done = work.time;
  machine.work = &work;
  if (machine.violation.empty()) {
    work.run();
    if (!machine.violation.empty())
      machine.violation +=
          " [seed " + std::to_string(machine.options.seed) + ", work " + std::to_string(work.number) + "]";
  }
  machine.work = nullptr;
}

bool IsCaptured(const MachineState& machine, int stream) {
  return std::find(machine.capturing.begin(), machine.capturing.end(), stream) != machine.capturing.end();
}

// Into the stream, or into the graph that is being captured.
void Put(MachineState& machine, int stream, std::function<void()> run) {
  if (IsCaptured(machine, stream))
    machine.captured.push_back({.kind = Captured::Kind::kWork, .stream = stream, .run = std::move(run)});
  else
    Enqueue(machine, stream, std::move(run));
}

}  // namespace

Machine::Machine(const Options& options) : state_(std::make_unique<MachineState>(options)) { MakeStream(); }
Machine::~Machine() { ReleaseStacks(*state_); }

const std::string& Machine::violation() const { return state_->violation; }
const Counts& Machine::counts() const { return state_->counts; }

int Machine::MakeStream() {
  state_->streams.emplace_back();
  return static_cast<int>(state_->streams.size()) - 1;
}

void Machine::Launch(int stream, const dev::Shape& shape, std::function<void()> kernel) {
  Put(*state_, stream, [state = state_.get(), shape, kernel = std::move(kernel)] { RunLaunch(*state, shape, kernel); });
}

void Machine::Copy(int stream, void* to, const void* from, size_t bytes) {
  Put(*state_, stream, [state = state_.get(), to, from, bytes] {
    CheckStreamTouch(*state, from, bytes, false);
    CheckStreamTouch(*state, to, bytes, true);
    if (state->violation.empty()) std::memcpy(to, from, bytes);
  });
}

void Machine::Fill(int stream, void* to, uint8_t value, size_t bytes) {
  Put(*state_, stream, [state = state_.get(), to, value, bytes] {
    CheckStreamTouch(*state, to, bytes, true);
    if (state->violation.empty()) std::memset(to, value, bytes);
  });
}

int Machine::Record(int stream) {
  const int event = static_cast<int>(state_->events.size());
  state_->events.push_back({stream, state_->streams[static_cast<size_t>(stream)].clock});
  if (IsCaptured(*state_, stream))
    state_->captured.push_back({.kind = Captured::Kind::kRecord, .stream = stream, .event = event, .run = {}});
  return event;
}

void Machine::RecordAgain(int stream, int event) {
  state_->events[static_cast<size_t>(event)] = {stream, state_->streams[static_cast<size_t>(stream)].clock};
}

void Machine::Wait(int stream, int event) {
  const Event& e = state_->events[static_cast<size_t>(event)];
  if (IsCaptured(*state_, e.stream)) {
    if (!IsCaptured(*state_, stream)) state_->capturing.push_back(stream);
    state_->captured.push_back({.kind = Captured::Kind::kWait, .stream = stream, .event = event, .run = {}});
  } else {
    Join(state_->streams[static_cast<size_t>(stream)].clock, e.clock);
  }
}

bool Machine::Query(int event) {
  const std::vector<uint32_t> clock = state_->events[static_cast<size_t>(event)].clock;
  for (size_t s = 0; s < clock.size(); ++s) {
    if (state_->streams[s].done >= clock[s]) continue;
    if (state_->Random() % 2 == 0) RunFront(*state_, static_cast<int>(s));
    return false;
  }
  Join(state_->host_clock, clock);
  return true;
}

void Machine::SynchronizeEvent(int event) {
  const std::vector<uint32_t> clock = state_->events[static_cast<size_t>(event)].clock;
  RunUntil(*state_, clock);
  Join(state_->host_clock, clock);
}

void Machine::SynchronizeStream(int stream) { SynchronizeEvent(Record(stream)); }

void Machine::BeginCapture(int stream) {
  state_->captured.clear();
  state_->capturing = {stream};
}

int Machine::EndCapture(int stream) {
  if (state_->capturing.empty() || state_->capturing.front() != stream)
    state_->violation = "the end of a capture that didn't begin on stream " + std::to_string(stream);
  Graph graph{std::move(state_->captured), {}};
  for (const int branch : state_->capturing) graph.streams[branch] = branch == stream ? -1 : MakeStream();
  state_->captured.clear();
  state_->capturing.clear();
  state_->graphs.push_back(std::move(graph));
  return static_cast<int>(state_->graphs.size()) - 1;
}

// Branches of a graph run on streams of its own, between what comes before and after it in `stream`.
void Machine::LaunchGraph(int graph, int stream) {
  const Graph& g = state_->graphs[static_cast<size_t>(graph)];
  const auto stream_of = [&](int captured) {
    const int own = g.streams.at(captured);
    return own < 0 ? stream : own;
  };
  const int begin = Record(stream);
  for (const auto& [captured, own] : g.streams)
    if (own >= 0) Wait(own, begin);
  std::map<int, int> events;
  for (const Captured& c : g.captured) {
    if (c.kind == Captured::Kind::kWork) Enqueue(*state_, stream_of(c.stream), c.run);
    if (c.kind == Captured::Kind::kRecord) events[c.event] = Record(stream_of(c.stream));
    if (c.kind == Captured::Kind::kWait) Wait(stream_of(c.stream), events.at(c.event));
  }
  for (const auto& [captured, own] : g.streams)
    if (own >= 0) Wait(stream, Record(own));
}

}  // namespace openlora::cuda_sim
