#include "ops/reference/reference_ops.h"

#include <cmath>
#include <numbers>
#include <vector>

#include "ops/reference/reference_attention.h"
#include "ops/reference/reference_bf16.h"
#include "ops/reference/reference_int4.h"
#include "ops/reference/reference_int8.h"
#include "ops/reference/reference_lora.h"
#include "ops/reference/reference_sample.h"

namespace openlora {
namespace {

class ReferenceOps final : public Ops {
 public:
  const char* name() const override { return "reference"; }
  const char* packed_layout() const override { return "reference-1"; }

  int64_t PackedBytes(WeightFormat format, int64_t out, int64_t in) const override {
    if (format == WeightFormat::kInt8) return out * GroupCount<Int8Group>(in) * static_cast<int64_t>(sizeof(Int8Group));
    if (format == WeightFormat::kInt4) return out * GroupCount<Int4Group>(in) * static_cast<int64_t>(sizeof(Int4Group));
    return out * in * static_cast<int64_t>(SizeOf(format.dtype()));
  }

  void Pack(const SourceView& source, WeightFormat format, int64_t, int64_t out_begin, void* packed) override {
    if (format == WeightFormat::kInt8)
      return PackRows<Int8Group>(source, out_begin, packed, [](std::span<const float> row) {
        return reference::Int8QuantiseRow(row, &reference::Int8QuantiseWeights);
      });
    if (format == WeightFormat::kInt4)
      return PackRows<Int4Group>(source, out_begin, packed, [](std::span<const float> row) {
        return reference::Int4QuantiseRow(row, &reference::Int4QuantiseWeights);
      });
    for (int64_t i = 0; i < source.rows * source.cols; ++i)
      StoreFromFloat(packed, format.dtype(), out_begin * source.cols + i, LoadUnaligned(source, i));
  }

  void PackTileA(const float* values, int64_t stride, int32_t ranks, int32_t columns, DType dtype,
                 void* tile) const override {
    for (int32_t r = 0; r < ranks; ++r)
      reference::StoreTileRow({values + r * stride, static_cast<size_t>(columns)}, ranks, r, dtype, tile);
  }

  void PackTileB(const float* values, int64_t stride, int32_t ranks, int32_t columns, DType dtype,
                 void* tile) const override {
    std::vector<float> row(columns);
    for (int32_t r = 0; r < ranks; ++r) {
      for (int32_t c = 0; c < columns; ++c) row[c] = values[c * stride + r];
      reference::StoreTileRow(row, ranks, r, dtype, tile);
    }
  }

  void Embed(const EmbedArgs& args) override {
    const Weight& table = *args.table;  // [V, H]
    std::vector<double> delta(args.rows * table.in);
    const auto shrink = [&](int32_t row, const std::vector<double>& a, int32_t rank, std::vector<double>& h) {
      for (int32_t r = 0; r < rank; ++r) h[r] = a[r * table.out + args.tokens[row]];
    };
    reference::AddLora(args.entries, args.pages, args.site, table.out, table.in, shrink, delta, counters_);
    for (int32_t row = 0; row < args.rows; ++row) {
      const std::vector<float> base = RowOf(table, args.tokens[row]);
      for (int64_t i = 0; i < table.in; ++i)
        args.out.f32(row)[i] = static_cast<float>(args.scale * (double{base[i]} + delta[row * table.in + i]));
    }
    counters_.weight_bytes_read += PackedBytes(table.format, args.rows, table.in);
  }

  void RmsNorm(const TensorView& x, const float* gain, int64_t dim, float eps, const TensorView& out) override {
    for (int64_t row = 0; row < x.rows; ++row)
      for (int64_t begin = 0; begin < x.cols; begin += dim) {
        const float* from = x.f32(row) + begin;
        double sum = 0;
        for (int64_t i = 0; i < dim; ++i) sum += double{from[i]} * from[i];
        const double inverse = 1 / std::sqrt(sum / static_cast<double>(dim) + eps);
        for (int64_t i = 0; i < dim; ++i) out.f32(row)[begin + i] = static_cast<float>(from[i] * inverse * gain[i]);
      }
  }

  void Project(const ProjectArgs& args) override {
    if (args.gate != nullptr) GatedActivation(args.gate->activation, args.x, args.gate->up);
    for (const Product& product : args.products) ProjectOne(args, product);
  }

  void RopeTable(const RowsView& rows, const RopeFrequencies& rope, const TensorView& cos_sin) override {
    const size_t half = rope.inv_freq.size();
    for (int32_t row = 0; row < rows.rows; ++row) {
      const bool is_long = !rope.long_inv_freq.empty() && rows.row_is_long != nullptr && rows.row_is_long[row] != 0;
      for (size_t i = 0; i < half; ++i) {
        const double angle = rows.row_pos[row] * double{(is_long ? rope.long_inv_freq : rope.inv_freq)[i]};
        cos_sin.f32(row)[i] = static_cast<float>(rope.factor * std::cos(angle));
        cos_sin.f32(row)[half + i] = static_cast<float>(rope.factor * std::sin(angle));
      }
    }
  }

  void Rope(const TensorView& x, int32_t heads, int32_t head_dim, const TensorView& cos_sin) override {
    const int64_t half = cos_sin.cols / 2;
    for (int64_t row = 0; row < x.rows; ++row)
      for (int32_t head = 0; head < heads; ++head)
        for (int64_t i = 0; i < half; ++i) {
          float* pair = x.f32(row) + int64_t{head} * head_dim + i;
          const double a = pair[0], b = pair[half];
          const double c = cos_sin.f32(row)[i], s = cos_sin.f32(row)[half + i];
          pair[0] = static_cast<float>(a * c - b * s);
          pair[half] = static_cast<float>(b * c + a * s);
        }
  }

  void KvAppend(const TensorView& k, const TensorView& v, const RowsView& rows, const KvView& kv,
                int32_t layer) override {
    reference::KvAppend(k, v, rows, kv, layer);
  }

  int64_t KvBytes(DType dtype, int32_t kv_heads, int32_t head_dim, int32_t tokens) const override {
    return reference::KvBytes(dtype, kv_heads, head_dim, tokens);
  }

  void Attention(const AttentionArgs& args) override { reference::Attention(args); }

  void GatedActivation(Activation activation, const TensorView& gate, const TensorView& up) override {
    for (int64_t row = 0; row < gate.rows; ++row)
      for (int64_t i = 0; i < gate.cols; ++i) {
        const double x = gate.f32(row)[i];
        // (1 + tanh(u)) / 2 = 1 / (1 + e^-2u), which doesn't cancel for x << 0.
        const double z =
            activation == Activation::kSilu ? x : 2 * std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x);
        gate.f32(row)[i] = static_cast<float>(x / (1 + std::exp(-z)) * up.f32(row)[i]);
      }
  }

  void AddScaled(const TensorView& x, float scale, const TensorView& out) override {
    for (int64_t row = 0; row < x.rows; ++row)
      for (int64_t i = 0; i < x.cols; ++i)
        out.f32(row)[i] = static_cast<float>(out.f32(row)[i] + double{scale} * x.f32(row)[i]);
  }

  void SoftCap(const TensorView& x, float cap) override {
    for (int64_t row = 0; row < x.rows; ++row)
      for (int64_t i = 0; i < x.cols; ++i)
        x.f32(row)[i] = static_cast<float>(cap * std::tanh(double{x.f32(row)[i]} / cap));
  }

  void GatherRows(const TensorView& x, std::span<const int32_t> rows, const TensorView& out) override {
    for (size_t i = 0; i < rows.size(); ++i)
      for (int64_t c = 0; c < x.cols; ++c) out.f32(static_cast<int64_t>(i))[c] = x.f32(rows[i])[c];
  }

  void Sample(const TensorView& logits, std::span<const SampleRow> rows, std::span<SampleResult> results) override {
    for (size_t i = 0; i < rows.size(); ++i)
      results[i] = reference::SampleOne(logits.f32(static_cast<int64_t>(i)), logits.cols, rows[i]);
  }

  Status Synchronize() override { return Ok(); }

 private:
  using Int8Group = reference::Int8Group;
  using Int4Group = reference::Int4Group;

  template <typename Group>
  static int64_t GroupCount(int64_t in) {
    constexpr auto kGroupK = static_cast<int64_t>(std::tuple_size_v<decltype(Group::q)>);
    return (in + kGroupK - 1) / kGroupK;
  }

  // Of row `row` of a quantised weight.
  template <typename Group>
  static std::span<const Group> GroupsOf(const Weight& weight, int64_t row) {
    const int64_t groups = GroupCount<Group>(weight.in);
    return {static_cast<const Group*>(weight.data) + row * groups, static_cast<size_t>(groups)};
  }

  template <typename Group, typename Quantise>
  static void PackRows(const SourceView& source, int64_t out_begin, void* packed, const Quantise& quantise) {
    Group* to = static_cast<Group*>(packed) + out_begin * GroupCount<Group>(source.cols);
    std::vector<float> values(source.cols);
    for (int64_t row = 0; row < source.rows; ++row) {
      for (int64_t k = 0; k < source.cols; ++k) values[k] = LoadUnaligned(source, row * source.cols + k);
      for (const Group& group : quantise(std::span<const float>(values))) *to++ = group;
    }
  }

  // The values that a row of a weight stands for.
  static std::vector<float> RowOf(const Weight& weight, int64_t row) {
    if (weight.format == WeightFormat::kInt8)
      return reference::Int8Dequantise(GroupsOf<Int8Group>(weight, row), weight.in);
    if (weight.format == WeightFormat::kInt4)
      return reference::Int4Dequantise(GroupsOf<Int4Group>(weight, row), weight.in);
    std::vector<float> values(weight.in);
    for (int64_t i = 0; i < weight.in; ++i)
      values[i] = LoadAsFloat(weight.data, weight.format.dtype(), row * weight.in + i);
    return values;
  }

  // of_x·W[o] for each o.
  template <typename Group, typename Dot>
  static std::vector<double> GroupProducts(const std::vector<Group>& of_x, const Weight& weight, const Dot& dot) {
    std::vector<double> sums(weight.out);
    for (int64_t o = 0; o < weight.out; ++o) {
      const std::span<const Group> of_w = GroupsOf<Group>(weight, o);
      for (size_t g = 0; g < of_w.size(); ++g) sums[o] += double{of_x[g].scale} * of_w[g].scale * dot(of_x[g], of_w[g]);
    }
    return sums;
  }

  // x·W[o] for each o.
  static std::vector<double> BaseProducts(const float* x, const Weight& weight) {
    const std::span<const float> row(x, static_cast<size_t>(weight.in));
    if (weight.format == WeightFormat::kInt8)
      return GroupProducts(reference::Int8QuantiseRow(row, &reference::Int8QuantiseActivations), weight,
                           &reference::Int8Dot);
    if (weight.format == WeightFormat::kInt4)
      return GroupProducts(reference::Int4QuantiseRow(row, &reference::Int4QuantiseActivations), weight,
                           &reference::Int4Dot);
    std::vector<float> factors(row.begin(), row.end());
    if (weight.format == WeightFormat::kBF16Dot)
      for (float& factor : factors) factor = reference::RoundToBF16(factor);
    std::vector<double> sums(weight.out);
    for (int64_t o = 0; o < weight.out; ++o)
      for (int64_t i = 0; i < weight.in; ++i)
        sums[o] += double{factors[i]} * LoadAsFloat(weight.data, weight.format.dtype(), o * weight.in + i);
    return sums;
  }

  void ProjectOne(const ProjectArgs& args, const Product& product) {
    const Weight& weight = *product.weight;
    std::vector<double> delta(args.x.rows * weight.out);
    const auto shrink = [&](int32_t row, const std::vector<double>& a, int32_t rank, std::vector<double>& h) {
      for (int32_t r = 0; r < rank; ++r) {
        h[r] = 0;
        for (int64_t i = 0; i < weight.in; ++i) h[r] += args.x.f32(row)[i] * a[r * weight.in + i];
      }
    };
    reference::AddLora(args.entries, args.pages, product.site, weight.in, weight.out, shrink, delta, counters_);
    for (int64_t row = 0; row < args.x.rows; ++row) {
      const std::vector<double> products = BaseProducts(args.x.f32(row), weight);
      for (int64_t o = 0; o < weight.out; ++o) {
        const double sum = products[o] + (weight.bias != nullptr ? weight.bias[o] : 0);
        float& out = product.out.f32(row)[o];
        out = static_cast<float>((product.accumulates ? out : 0) + sum + delta[row * weight.out + o]);
      }
    }
    counters_.weight_bytes_read += PackedBytes(weight.format, weight.out, weight.in);
  }
};

}  // namespace

std::unique_ptr<Ops> CreateReferenceOps() { return std::make_unique<ReferenceOps>(); }

}  // namespace openlora
