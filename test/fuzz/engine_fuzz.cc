// Requests with arbitrary fields, cancels, pauses, registrations, loads that fail and steps, in any order, against an
// EngineCore with little memory, of one of a few kinds of model. After each call its invariants hold; in the end every
// request has ended once, nothing is held, and every answer is, bit for bit, what the request gets alone in an engine
// with plenty of memory.

#include <optional>
#include <set>

#include "fuzz/tiny_engine.h"

namespace openlora::fuzz {
namespace {

// The long context is there for readers that are behind: few requests show that.
constexpr int32_t kShortContext = 64, kLongContext = 320;
constexpr int64_t kRequestsMax = 16, kLongRequestsMax = 3;

template <typename T>
bool IsPrefix(const std::vector<T>& part, const std::vector<T>& whole) {
  return part.size() <= whole.size() &&
         (part.empty() || std::memcmp(part.data(), whole.data(), part.size() * sizeof(T)) == 0);
}

// One request after another, each alone; adapters of every kind are registered under their numbers + 1.
class Alone {
 public:
  Alone(Variant variant, int32_t max_context) : engine_(Options(variant, max_context)) {
    for (int kind = 0; kind < kAdapterKinds; ++kind) engine_.core().Register(kind + 1, TinyFiles::Get().adapter(kind));
    while (engine_.has_work()) engine_.DoWork(false);
  }
  Answer Run(Request request) {
    request.id = 1;
    request.deadline_ms = 0;
    request.priority = 0;
    engine_.answers().clear();
    engine_.Submit(std::move(request));
    engine_.Drain();
    return engine_.answers().at(1);
  }

 private:
  static EngineOptions Options(Variant variant, int32_t max_context) {
    EngineOptions options = TinyFiles::Get().Options(variant, max_context, 200, 64, 1);
    options.checks_invariants = options.poisons_freed = false;  // the company's engine is what is checked
    options.has_prefix_cache = false;
    return options;
  }
  TinyEngine engine_;
};

class Session {
 public:
  explicit Session(FuzzInput input) : input_(input) {
    const uint8_t byte = input_.Byte();
    const bool is_long = byte % 16 == 1;
    variant_ = static_cast<Variant>(byte / 16 % kVariants);
    max_context_ = is_long ? kLongContext : kShortContext;
    const int64_t frames = is_long ? input_.Range(40, 60) : input_.Range(8, 30);
    const int32_t max_batch_tokens = input_.Range(1, 40), max_queued = input_.Range(1, 8);
    engine_.emplace(TinyFiles::Get().Options(variant_, max_context_, frames, max_batch_tokens, max_queued));
  }

  void Run() {
    for (int call = 0; call < 200 && !input_.is_empty(); ++call) {
      Call();
      const Status sound = engine().core().CheckInvariants();
      FUZZ_CHECK(sound.ok(), "%s", sound.message().c_str());
    }
    if (input_.OneIn(5)) return CheckClose();
    for (int64_t id = 1; id < next_request_; ++id) engine().core().SetPaused(id, false);
    engine().Drain();
    for (int64_t id = 1; id < next_request_; ++id) CheckAnswer(requests_.at(id), engine().answers().at(id));
    for (const auto& [handle, kind] : handles_) engine().core().Unregister(handle);
    const FramePool& pool = engine().core().pool();
    FUZZ_CHECK(engine().core().residency().adapters().empty(), "an adapter that nobody uses stays");
    FUZZ_CHECK(pool.IsConsistent(), "the pool counts wrongly");
    engine().core().Step();
    FUZZ_CHECK(pool.frames(FrameUse::kKv) + pool.frames(FrameUse::kAdapter) == 0, "frames that nobody uses are held");
  }

 private:
  TinyEngine& engine() { return *engine_; }
  int64_t AnyRequest() { return input_.Range(0, static_cast<int32_t>(next_request_)); }
  int64_t AnyHandle() { return input_.Range(1, static_cast<int32_t>(std::max<int64_t>(1, next_handle_ - 1))); }

  void Call() {
    switch (input_.Byte() % 12) {
      case 0:
      case 1:
        return Submit();
      case 2:
        return engine().core().Cancel(AnyRequest());
      case 3: {
        const int64_t id = AnyRequest();
        return engine().core().SetPaused(id, input_.Bool());
      }
      case 4:
        if (next_handle_ > 12) return;
        handles_[next_handle_] = input_.Range(0, kAdapterKinds - 1);
        engine().core().Register(next_handle_, TinyFiles::Get().adapter(handles_[next_handle_]));
        ++next_handle_;
        return;
      case 5:
        return engine().core().Unregister(AnyHandle());
      case 6:
        return engine().DoWork(input_.OneIn(6));
      case 7:
        return engine().Read();
      default:
        for (int steps = 1 + input_.Byte() % 8; steps > 0; --steps) engine().core().Step();
    }
  }

  void Submit() {
    if (next_request_ > (max_context_ == kLongContext ? kLongRequestsMax : kRequestsMax)) return;
    const Request request = ReadRequest();
    requests_[request.id] = request;
    engine().Submit(request);
  }

  std::vector<int32_t> Tokens(int32_t count) {
    std::vector<int32_t> tokens;
    for (; count > 0; --count)
      tokens.push_back(input_.OneIn(64) ? input_.Any<int32_t>() : input_.Range(0, kVocabulary - 1));
    return tokens;
  }

  Request ReadRequest() {
    Request request;
    request.id = next_request_++;
    // Prompts cost few bytes of input: a few tokens, again and again.
    const std::vector<int32_t> part = Tokens(input_.Range(0, 4));
    for (int times = input_.Range(1, 18); times > 0; --times)
      request.tokens.insert(request.tokens.end(), part.begin(), part.end());
    for (int count = input_.Range(0, 4) - 1; count > 0; --count)
      request.adapters.push_back({AnyHandle(), input_.OneIn(4) ? input_.Any<float>() : 1.0f});
    request.max_tokens = input_.OneIn(8) ? input_.Any<int32_t>() : input_.Range(1, 24);
    const uint8_t fields = input_.Byte();
    if ((fields & 1) != 0) request.temperature = input_.OneIn(4) ? input_.Any<float>() : 0.8f;
    if ((fields & 2) != 0) request.seed = input_.Any<uint64_t>();
    if ((fields & 4) != 0) ReadSampling(&request);
    if ((fields & 8) != 0) request.logprobs = input_.Range(-1, 21);
    if ((fields & 16) != 0) request.prompt_logprobs = input_.Range(-1, 21);
    if ((fields & 32) != 0) ReadEnds(&request);
    if ((fields & 64) != 0) request.priority = input_.Any<int8_t>();
    constexpr double kDeadlines[] = {1e-9, 1e12, -1};
    if ((fields & 128) != 0) request.deadline_ms = input_.OneIn(4) ? input_.Any<double>() : input_.Pick(kDeadlines);
    return request;
  }
  void ReadSampling(Request* request) {
    request->top_k = input_.OneIn(4) ? input_.Any<int32_t>() : input_.Range(0, 9);
    request->top_p = input_.OneIn(3) ? input_.Any<float>() : static_cast<float>(input_.Range(0, 10)) / 10;
    request->min_p = input_.OneIn(3) ? input_.Any<float>() : static_cast<float>(input_.Range(0, 10)) / 10;
    float* const penalties[] = {&request->repetition_penalty, &request->presence_penalty, &request->frequency_penalty};
    for (float* penalty : penalties) {
      if (input_.OneIn(3))
        *penalty = input_.OneIn(4) ? input_.Any<float>() : static_cast<float>(input_.Range(1, 30)) / 10;
    }
    for (const int32_t token : Tokens(input_.Range(0, 2)))
      request->logit_bias.push_back({token, input_.OneIn(3) ? input_.Any<float>() : 2.0f});
  }
  void ReadEnds(Request* request) {
    request->min_tokens = input_.OneIn(8) ? input_.Any<int32_t>() : input_.Range(0, 12);
    request->eos_tokens = Tokens(input_.Range(0, 2));
    request->stop_tokens = Tokens(input_.Range(0, 2));
    for (int count = input_.Range(0, 2); count > 0; --count) request->stop.push_back(input_.Text(6));
  }

  // What came of a request in company is what comes of it alone, as far as it came.
  void CheckAnswer(const Request& request, const Answer& answer) {
    static const std::set<std::string> kOfCompany = {kErrOverloaded, kErrAdapterNotFound};
    if (kOfCompany.contains(answer.end)) {
      FUZZ_CHECK(answer.tokens.empty(), "an answer, and %s", answer.end.c_str());
      return;
    }
    Request twin = request;
    for (AdapterUse& use : twin.adapters) use.handle = handles_.contains(use.handle) ? handles_.at(use.handle) + 1 : 99;
    static std::optional<Alone> engines[kVariants][2];
    std::optional<Alone>& engine_alone = engines[static_cast<size_t>(variant_)][max_context_ == kShortContext ? 0 : 1];
    if (!engine_alone) engine_alone.emplace(variant_, max_context_);
    const Answer alone = engine_alone->Run(twin);
    const bool is_cut = answer.end == "cancelled" || answer.end == kErrDeadline || answer.end == kErrOutOfMemory ||
                        answer.end == kErrAdapterChanged;
    FUZZ_CHECK(is_cut || answer.end == alone.end, "request %lld ends with %s, alone with %s",
               static_cast<long long>(request.id), answer.end.c_str(), alone.end.c_str());
    const bool is_same = IsPrefix(answer.tokens, alone.tokens) && IsPrefix(answer.logprobs, alone.logprobs) &&
                         IsPrefix(answer.prompt_logprobs, alone.prompt_logprobs) && alone.text.starts_with(answer.text);
    FUZZ_CHECK(is_same, "request %lld's answer differs from what it is alone", static_cast<long long>(request.id));
    if (is_cut) return CheckMemory(request, answer);
    FUZZ_CHECK(answer.tokens.size() == alone.tokens.size() && answer.text == alone.text &&
                   answer.prompt_logprobs.size() == alone.prompt_logprobs.size(),
               "request %lld is incomplete", static_cast<long long>(request.id));
  }
  // Out of memory is for what doesn't fit alone.
  void CheckMemory(const Request& request, const Answer& answer) {
    if (answer.end != kErrOutOfMemory) return;
    const AdapterResidency& residency = engine().core().residency();
    std::set<int64_t> handles;
    for (const AdapterUse& use : request.adapters) handles.insert(use.handle);
    int64_t frames = 2 * ((static_cast<int64_t>(request.tokens.size() + answer.tokens.size()) + 1 + 15) / 16);
    for (const int64_t handle : handles)
      frames += PlanTiles(TinyFiles::Get().adapter(handles_.at(handle)), residency.shapes(), residency.format()).frames;
    FUZZ_CHECK(frames > engine().core().pool().frames_total(), "request %lld needs %lld frames of %lld and got none",
               static_cast<long long>(request.id), static_cast<long long>(frames),
               static_cast<long long>(engine().core().pool().frames_total()));
  }

  // In mid-work: everyone hears of it.
  void CheckClose() {
    engine().core().Close(Status(kErrClosed, "the end"));
    engine().Read();
    for (int64_t id = 1; id < next_request_; ++id)
      FUZZ_CHECK(!engine().answers().at(id).end.empty(), "request %lld never ended", static_cast<long long>(id));
    FUZZ_CHECK(engine().core().CheckInvariants().ok(), "after Close");
  }

  FuzzInput input_;
  Variant variant_ = Variant::kPlain;
  int32_t max_context_ = 0;
  std::optional<TinyEngine> engine_;
  int64_t next_request_ = 1, next_handle_ = 1;
  std::map<int64_t, Request> requests_;
  std::map<int64_t, int> handles_;  // kind of adapter
};

}  // namespace
}  // namespace openlora::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  openlora::fuzz::Session({data, size}).Run();
  return 0;
}
