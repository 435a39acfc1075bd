#include "base/sha256.h"
#include "native/cpu/cpu_fixture.h"
#include "ops/cpu/cpu_device.h"

namespace openlora::cpu_test {
namespace {

constexpr DType kAllDTypes[] = {DType::kF32, DType::kF16, DType::kBF16};

// A Project of one-hot rows reads the packed values back.
std::vector<float> ReadBack(Ops& ops, const Weight& weight) {
  std::vector<float> x(static_cast<size_t>(weight.in * weight.in)), y(static_cast<size_t>(weight.in * weight.out));
  for (int64_t k = 0; k < weight.in; ++k) x[static_cast<size_t>(k * weight.in + k)] = 1;
  const Product product{&weight, F32View(y.data(), weight.in, weight.out), -1, false};
  ops.Project({F32View(x.data(), weight.in, weight.in), {&product, 1}, nullptr, nullptr});
  return y;
}

TEST(CpuPack, ConvertsBetweenAllDTypesFromUnalignedSourcesInPieces) {
  const int64_t out = 77, in = 45;
  const auto ops = MakeOps(SimdLevel::kAuto, 2);
  const std::vector<float> values = Values(3, out * in);
  for (const DType from : kAllDTypes)
    for (const DType to : kAllDTypes) {
      const size_t element = SizeOf(from);
      std::vector<uint8_t> source(static_cast<size_t>(out * in) * element + 1);
      for (size_t i = 0; i < values.size(); ++i) {
        uint32_t place = 0;
        StoreFromFloat(&place, from, 0, values[i]);
        std::memcpy(&source[1 + i * element], &place, element);
      }
      Aligned packed = AllocateAligned(ops->PackedBytes(to, out, in));
      std::memset(packed.get(), 0xff, static_cast<size_t>(ops->PackedBytes(to, out, in)));
      ops->Pack({&source[1 + 64 * in * element], from, out - 64, in}, to, out, 64, packed.get());
      ops->Pack({&source[1], from, 64, in}, to, out, 0, packed.get());
      const std::vector<float> back = ReadBack(*ops, {to, out, in, packed.get(), nullptr});
      for (int64_t o = 0; o < out; ++o)
        for (int64_t k = 0; k < in; ++k)
          ASSERT_EQ(back[static_cast<size_t>(k * out + o)],
                    RoundTo(to, RoundTo(from, values[static_cast<size_t>(o * in + k)])))
              << NameOf(from) << " to " << NameOf(to);
    }
}

TEST(CpuPack, TheBytesAreThoseOfTheLayoutsNameOnEveryLevel) {
  // Weights packed before are kept on disk under this name: where the bytes change, kPackedLayout must, and then this.
  const std::string name = "cpu-1";
  const std::string bytes = "cfd8316330dbe59cc8aa4140d516b6b214f1c97981cc56b59a7dcf84e36889a6";
  const int64_t out = 77, in = 301;
  const std::vector<float> values = Values(11, out * in);
  for (const SimdLevel level : AvailableSimdLevels()) {
    const auto ops = MakeOps(level, 2);
    EXPECT_EQ(ops->packed_layout(), name);
    Sha256 hash;
    for (const WeightFormat::Kind format :
         {WeightFormat::kF32, WeightFormat::kF16, WeightFormat::kBF16, WeightFormat::kInt8, WeightFormat::kInt4}) {
      const int64_t size = ops->PackedBytes(format, out, in);
      const Aligned packed = AllocateAligned(size);
      ops->Pack({values.data(), DType::kF32, out, in}, format, out, 0, packed.get());
      hash.Update(packed.get(), static_cast<size_t>(size));
    }
    std::vector<float> vector(static_cast<size_t>(in));
    ops->PackVector({values.data(), DType::kF32, 1, in}, 1, 0.3f, vector.data());
    hash.Update(vector.data(), vector.size() * sizeof(float));
    EXPECT_EQ(ToHex(hash.Finish()), bytes) << NameOf(level);
  }
}

TEST(CpuPack, ATileHoldsItsPayloadAlone) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16, DType::kI8})
    for (int32_t ranks = 1; ranks <= kTileRanks; ++ranks)
      for (const int32_t columns : {32, 384, 480, 512}) {
        const int64_t scales = dtype == DType::kI8 ? int64_t{ranks} * columns / 32 * 2 : 0;
        const int64_t payload = int64_t{ranks} * columns * static_cast<int64_t>(SizeOf(dtype)) + scales;
        EXPECT_EQ(TileBytes(dtype, ranks, columns), payload);
      }
}

TEST(CpuDevice, GivesZeroedAlignedMemoryAndRefusesTheImpossible) {
  CpuDevice device;
  for (const size_t bytes : {size_t{1}, size_t{5000}, size_t{3} << 20}) {
    void* data = nullptr;
    ASSERT_TRUE(device.Allocate(bytes, &data).ok());
    EXPECT_EQ(reinterpret_cast<uintptr_t>(data) % 4096, 0u);
    EXPECT_EQ(static_cast<uint8_t*>(data)[bytes - 1], 0);
    const uint8_t byte = 7;
    ASSERT_TRUE(device.Upload(static_cast<uint8_t*>(data) + bytes - 1, &byte, 1).ok());
    EXPECT_EQ(static_cast<uint8_t*>(data)[bytes - 1], 7);
    device.Free(data, bytes);
  }
  void* data = nullptr;
  const Status status = device.Allocate(size_t{1} << 60, &data);
  EXPECT_STREQ(status.code(), kErrOutOfMemory);
}

}  // namespace
}  // namespace openlora::cpu_test
