#pragma once

#include <cmath>
#include <deque>
#include <map>
#include <memory>

#include "base/clock.h"
#include "base/prng.h"
#include "engine/engine_core.h"
#include "fuzz/fuzz_input.h"
#include "fuzz/memory_file.h"
#include "ops/cpu/cpu_device.h"
#include "ops/cpu/cpu_ops.h"

namespace openlora::fuzz {

inline constexpr int32_t kVocabulary = 40;
inline constexpr int kAdapterKinds = 4;
inline constexpr int32_t kWindow = 9, kRopeSwitch = 24;  // tokens

// What the base is computed as. Its matrices, and so its adapters, are the same in all.
enum class Variant : uint8_t {
  kPlain,     // Llama
  kWindows,   // every other layer sees kWindow positions, and rotates by frequencies of its own
  kLongRope,  // sequences of more than kRopeSwitch tokens are computed anew, by other frequencies
  kInt8,      // matrices in int8
};
inline constexpr int kVariants = 4;

// The files of a tiny base and a few adapters, made once.
class TinyFiles {
 public:
  static const TinyFiles& Get() {
    static const TinyFiles files;
    return files;
  }

  EngineOptions Options(Variant variant, int32_t max_context, int64_t frames, int32_t max_batch_tokens,
                        int32_t max_queued) const {
    EngineOptions options = options_;
    Vary(variant, &options);
    options.max_context = max_context;
    options.pool_bytes = frames * 4096;
    options.max_batch_tokens = max_batch_tokens;
    options.max_queued = max_queued;
    options.open_backend = [](Backend* backend) {
      backend->device = std::make_unique<CpuDevice>();
      return CreateCpuOps(SimdLevel::kScalar, 1, &backend->ops);
    };
    return options;
  }
  // Ranks 1, 6, 9 and 20; the last one's values are so large that some answers overflow.
  const AdapterManifest& adapter(int kind) const { return adapters_[static_cast<size_t>(kind)]; }

 private:
  // Writes matrices one after another.
  class Writer {
   public:
    explicit Writer(uint64_t seed) : seed_(seed) {}
    TensorRange Add(int64_t rows, int64_t cols, float scale, float mean = 0) {
      const TensorRange range{0, static_cast<int64_t>(values_.size()) * 4, rows * cols * 4, DType::kF32, rows, cols};
      for (int64_t i = 0; i < rows * cols; ++i)
        values_.push_back(mean + scale * static_cast<float>(2 * PhiloxUniform(seed_, values_.size()) - 1));
      return range;
    }
    std::unique_ptr<MemoryFile> Finish() const {
      std::vector<uint8_t> bytes(values_.size() * 4);
      std::memcpy(bytes.data(), values_.data(), bytes.size());
      return std::make_unique<MemoryFile>(bytes);
    }

   private:
    uint64_t seed_;
    std::vector<float> values_;
  };

  static void Vary(Variant variant, EngineOptions* options) {
    ModelConfig& model = options->model;
    if (variant == Variant::kWindows) {
      model.ropes.push_back(model.ropes[0]);
      for (float& frequency : model.ropes[1].inv_freq) frequency /= 3;
      model.layer_options = {{kWindow, 1}, {0, 0}};
    } else if (variant == Variant::kLongRope) {
      model.rope_switch = kRopeSwitch;
      model.ropes[0].long_inv_freq = {0.9f, 0.2f, 0.05f, 0.01f};
    } else if (variant == Variant::kInt8) {
      options->dtype = WeightFormat::kInt8;
    }
  }

  TinyFiles() {
    ModelConfig& model = options_.model;
    model = {.layers = 2,
             .hidden = 16,
             .heads = 2,
             .kv_heads = 1,
             .head_dim = 8,
             .intermediate = 24,
             .vocab = kVocabulary,
             .context = 400};
    model.attention_scale = 0.35f;
    model.ropes = {{{1, 0.3f, 0.1f, 0.02f}, {}, 1}};
    model.layer_options.resize(2);
    options_.poisons_freed = options_.checks_invariants = true;
    MakeBase();
    MakeTokens();
    constexpr int32_t kRanks[kAdapterKinds] = {1, 6, 9, 20};
    for (int kind = 0; kind < kAdapterKinds; ++kind) MakeAdapter(kind, kRanks[kind], kind == 3 ? 1e18f : 0.3f);
  }
  void MakeBase() {
    const ModelConfig& m = options_.model;
    const std::vector<SiteShape> shapes = SiteShapes(m);
    Writer file(1);
    const auto add = [&](WeightRole role, int32_t layer, const TensorRange& range) {
      options_.tensors.push_back({role, layer, range});
    };
    add(WeightRole::kEmbed, -1, file.Add(m.vocab, m.hidden, 1.0f));
    add(WeightRole::kHead, -1, file.Add(m.vocab, m.hidden, 0.8f));
    add(WeightRole::kFinalNorm, -1, file.Add(1, m.hidden, 0.1f, 1.0f));
    for (int32_t layer = 0; layer < m.layers; ++layer) {
      add(WeightRole::kAttnNorm, layer, file.Add(1, m.hidden, 0.1f, 1.0f));
      add(WeightRole::kMlpNorm, layer, file.Add(1, m.hidden, 0.1f, 1.0f));
      for (int32_t site = 0; site < kLayerSites; ++site) {
        const SiteShape& shape = shapes[static_cast<size_t>(site)];
        if (shape.in == 0) continue;  // of fused models
        add(static_cast<WeightRole>(static_cast<int32_t>(WeightRole::kSite0) + site), layer,
            file.Add(shape.out, shape.in, 0.4f));
      }
    }
    files_.push_back(file.Finish());
    options_.files = {files_.back()->path()};
  }
  // Letters, parts of characters of two to four bytes, bytes that no character has, and nothing at all.
  void MakeTokens() {
    const std::string texts[] = {"",         "a",    "ab",    "\xC3",     "\xA9", "\xE2\x82", "\xAC", "\xF0\x9F",
                                 "\x98\x80", "\xFF", "b\xE2", "\x82\xAC", " ",    "\n",       "aaa",  "ba"};
    TokenTable tokens;
    for (int32_t token = 0; token <= kVocabulary; ++token) {
      tokens.offsets.push_back(static_cast<uint32_t>(tokens.bytes.size()));
      const std::string& text = texts[static_cast<size_t>(token) % std::size(texts)];
      tokens.bytes.insert(tokens.bytes.end(), text.begin(), text.end());
    }
    options_.read_tokens = [tokens] { return tokens; };
  }
  void MakeAdapter(int kind, int32_t rank, float scale) {
    const std::vector<SiteShape> shapes = SiteShapes(options_.model);
    Writer file(static_cast<uint64_t>(kind) + 7);
    AdapterManifest manifest;
    for (size_t site = static_cast<size_t>(kind % 3); site < shapes.size(); site += 3) {
      if (shapes[site].in == 0) continue;
      AdapterSite added{static_cast<int32_t>(site), rank, 0.5f, {}, {}};
      added.a = file.Add(rank, shapes[site].in, scale);
      added.b = file.Add(shapes[site].out, rank, scale);
      manifest.sites.push_back(added);
    }
    files_.push_back(file.Finish());
    manifest.files = {files_.back()->path()};
    adapters_.push_back(std::move(manifest));
  }

  EngineOptions options_;
  std::vector<AdapterManifest> adapters_;
  std::vector<std::unique_ptr<MemoryFile>> files_;
};

// What came of one request.
struct Answer {
  std::vector<int32_t> tokens;
  std::vector<float> logprobs;
  std::vector<float> prompt_logprobs;
  std::string text;
  std::string end;  // "eos", "stop", "length", "cancelled", or an error code
};

// An EngineCore, its loader's work, and what its outbox brought; checks every event as it comes.
class TinyEngine : public LoaderPort {
 public:
  explicit TinyEngine(EngineOptions options) : core_(std::move(options), &outbox_) {
    const Status opened = core_.Open(is_aborted_);
    FUZZ_CHECK(opened.ok(), "%s", opened.message().c_str());
    core_.Connect(this);
  }

  void Start(LoaderJob job) override {
    if (job.task != LoaderTask::kCheck) DropPrepare(job.handle);  // what comes now does that too, and more
    work_.push_back({std::move(job), false});
  }
  void Drop(int64_t handle) override {
    DropPrepare(handle);
    for (Work& work : work_) work.is_dropped |= work.job.handle == handle;
  }
  void DropFromPageCache(const AdapterContent&) override {}
  void Discard(const AdapterContent&) override {}
  void SetUploadBytes(int64_t) override {}

  EngineCore& core() { return core_; }
  std::map<int64_t, Answer>& answers() { return answers_; }
  bool has_work() const { return !work_.empty(); }

  void Submit(Request request) {
    request.submitted_ms = NowMs();
    prompts_[request.id] = request.tokens.size();
    answers_[request.id];
    core_.Submit(std::move(request));
  }
  // The oldest check or load; `fails`: as if a file had changed.
  void DoWork(bool fails) {
    if (work_.empty()) return;
    const Work work = std::move(work_.front());
    work_.pop_front();
    StoreReport report;
    const Pace pace = [&](int64_t) { return !work.is_dropped; };
    LoaderResult result = DoLoaderJob(core_.store(), core_.pool(), work.job, pace, is_aborted_, &report);
    if (fails) result.status = Status(kErrAdapterChanged, "as asked");
    core_.FinishLoader(std::move(result));
  }
  void Read() {
    outbox_.Flush();
    const EventBatch batch = outbox_.Take();
    ReadRecords(batch.records);
    for (const ControlEvent& event : batch.events) {
      if (const auto* end = std::get_if<EndEvent>(&event)) {
        constexpr const char* kNames[] = {"eos", "stop", "length", "cancelled"};
        FUZZ_CHECK(end->output == static_cast<int32_t>(answers_[end->request].tokens.size()) &&
                       end->input == static_cast<int32_t>(prompts_[end->request]),
                   "request %lld's usage is %d, %d", static_cast<long long>(end->request), end->input, end->output);
        Finish(end->request, kNames[static_cast<size_t>(end->reason)]);
      } else if (const auto* failed = std::get_if<FailedEvent>(&event)) {
        const std::string code = failed->status.code();
        FUZZ_CHECK(code.starts_with("ERR_") && code != kErrInternal && code != kErrEngineStalled, "%s: %s",
                   code.c_str(), failed->status.message().c_str());
        Finish(failed->request, code);
      }
    }
  }
  // Lets everything end. Nothing is paused, and every load succeeds.
  void Drain() {
    int idle = 0;  // a step may have waited for the reader alone
    for (int step = 0; core_.requests() > 0; ++step) {
      FUZZ_CHECK(step < 20'000 && idle < 3, "a request never ends");
      idle = core_.Step() || has_work() ? 0 : idle + 1;
      Read();
      DoWork(false);
    }
    while (has_work()) DoWork(false);
    Read();
  }

 private:
  struct Work {
    LoaderJob job;
    bool is_dropped;
  };

  void DropPrepare(int64_t handle) {
    std::erase_if(work_,
                  [&](const Work& work) { return work.job.handle == handle && work.job.task == LoaderTask::kPrepare; });
  }

  void Finish(int64_t request, const std::string& end) {
    const auto found = answers_.find(request);
    FUZZ_CHECK(found != answers_.end() && found->second.end.empty(), "request %lld ended twice, or never began",
               static_cast<long long>(request));
    found->second.end = end;
  }
  void ReadRecords(const std::vector<uint8_t>& records) {
    for (size_t at = 0; at < records.size();) {
      uint32_t header[8];
      FUZZ_CHECK(records.size() - at >= sizeof(header), "half a record");
      std::memcpy(header, records.data() + at, sizeof(header));
      const size_t text_at = at + 32 + size_t{header[5]} * 8;
      FUZZ_CHECK(header[0] % 4 == 0 && header[0] <= records.size() - at && text_at + header[6] <= at + header[0],
                 "a record of %u bytes, %u alternatives and %u bytes of text", header[0], header[5], header[6]);
      Answer& answer = answers_.at(header[1]);
      FUZZ_CHECK(answer.end.empty(), "a record after its end");
      float logprob;
      std::memcpy(&logprob, &header[4], 4);
      const auto* text = reinterpret_cast<const char*>(records.data()) + text_at;
      answer.text.append(text, header[6]);
      if (header[2] == static_cast<uint32_t>(RecordKind::kToken)) {
        FUZZ_CHECK(header[3] < kVocabulary, "token %u", header[3]);
        answer.tokens.push_back(static_cast<int32_t>(header[3]));
        answer.logprobs.push_back(logprob);
      } else {
        answer.prompt_logprobs.push_back(logprob);
      }
      at += header[0];
    }
  }

  std::atomic<bool> is_aborted_{false};
  Outbox outbox_{[] {}};
  EngineCore core_;
  std::deque<Work> work_;
  std::map<int64_t, Answer> answers_;
  std::map<int64_t, size_t> prompts_;
};

}  // namespace openlora::fuzz
