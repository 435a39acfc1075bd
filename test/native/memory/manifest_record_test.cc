#include "memory/manifest_record.h"

#include <gtest/gtest.h>

#include <cstring>

#include "base/checksum.h"

namespace openlora {
namespace {

const std::vector<SiteShape> kShapes = {{64, 48}, {0, 0}, {32, 96}};

AdapterSource Source() {
  AdapterSource source;
  source.manifest.files = {"/a/adapter_model.safetensors", "", std::string("b\0c", 3)};
  source.files = {{{1, 2, 3, 4}, {5, 6}}, {{~uint64_t{0}, 5, 1 << 20, -7}, {}}, {}};
  source.files[1].digest.fill(0xfe);
  AdapterSite q{0, 8, 0.25f, {0, 80, 8 * 64 * 4, DType::kF32, 8, 64}, {2, 1 << 30, 48 * 8 * 2, DType::kF16, 48, 8}};
  AdapterSite v{2, 1, -3, {1, 0, 64, DType::kBF16, 1, 32}, {1, 64, 96 * 4, DType::kF32, 96, 1}};
  source.manifest.sites = {q, v};
  return source;
}

bool IsEqual(const TensorRange& a, const TensorRange& b) {
  return a.file == b.file && a.offset == b.offset && a.bytes == b.bytes && a.dtype == b.dtype && a.rows == b.rows &&
         a.cols == b.cols;
}

TEST(ManifestRecord, ARecordGivesBackWhatItWasMadeOf) {
  const AdapterSource source = Source();
  AdapterSource read;
  ASSERT_TRUE(DecodeSource(EncodeSource(source), kShapes, &read).ok());
  EXPECT_EQ(read.manifest.files, source.manifest.files);
  EXPECT_EQ(read.files, source.files);
  ASSERT_EQ(read.manifest.sites.size(), 2u);
  for (size_t i = 0; i < 2; ++i) {
    const AdapterSite &a = read.manifest.sites[i], &b = source.manifest.sites[i];
    EXPECT_TRUE(a.site == b.site && a.rank == b.rank && a.scale == b.scale && IsEqual(a.a, b.a) && IsEqual(a.b, b.b));
  }
}

TEST(ManifestRecord, ARecordOfAllSitesOfARealModelTakesNineKilobytes) {
  AdapterSource source;
  source.manifest.files = {std::string(100, 'p')};
  source.files.resize(1);
  source.manifest.sites.resize(224);
  EXPECT_LT(EncodeSource(source).size(), 9'000u);
}

TEST(ManifestRecord, ADamagedRecordIsRefusedWhateverItsDamage) {
  const std::vector<uint8_t> whole = EncodeSource(Source());
  AdapterSource read;
  for (size_t kept = 0; kept < whole.size(); ++kept) {
    std::vector<uint8_t> cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(kept));
    EXPECT_STREQ(DecodeSource(cut, kShapes, &read).code(), kErrIo);
    if (kept < 8) continue;
    // With a checksum that fits, too.
    const uint64_t checksum = Checksum(cut.data(), kept - 8);
    std::memcpy(cut.data() + kept - 8, &checksum, 8);
    EXPECT_STREQ(DecodeSource(cut, kShapes, &read).code(), kErrIo) << kept;
  }
  for (size_t at = 0; at < whole.size(); ++at) {
    std::vector<uint8_t> flipped = whole;
    flipped[at] ^= 0x40;
    EXPECT_STREQ(DecodeSource(flipped, kShapes, &read).code(), kErrIo) << at;
  }
  EXPECT_STREQ(DecodeSource(whole, {{64, 48}}, &read).code(), kErrIo);
  EXPECT_TRUE(DecodeSource(whole, kShapes, &read).ok());
}

}  // namespace
}  // namespace openlora
