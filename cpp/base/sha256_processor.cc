#include "base/sha256_blocks.h"

// clang before 16 shows the instructions of aarch64 only to files that are compiled for them as a whole.
#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#define OPENLORA_SHA256_TARGET __attribute__((target("sha,ssse3,sse4.1")))
#elif defined(__aarch64__) && (defined(__ARM_FEATURE_SHA2) || !defined(__clang__) || __clang_major__ >= 16)
#include <arm_neon.h>

#include "base/hardware.h"
#if defined(__clang__)
#define OPENLORA_SHA256_TARGET __attribute__((target("sha2")))
#else
#define OPENLORA_SHA256_TARGET __attribute__((target("+crypto")))  // gcc 12's header has them under that name alone
#endif
#endif

namespace openlora {

#if !defined(OPENLORA_SHA256_TARGET)

Sha256Way Sha256WayOfProcessor() { return {"none", nullptr}; }

#else

namespace {

#if defined(__x86_64__)

constexpr const char* kName = "sha-ni";

bool HasInstructions() {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
  __get_cpuid(1, &eax, &ebx, &ecx, &edx);
  const bool has_sse = (ecx >> 9 & 1) != 0 && (ecx >> 19 & 1) != 0;  // SSSE3, SSE4.1
  ebx = 0;
  __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx);  // leaves ebx where there is no such leaf
  return has_sse && (ebx >> 29 & 1) != 0;
}

using Words = __m128i;  // four of the schedule, the first in the lowest lane

// As sha256rnds2 wants the working variables, named from the highest lane to the lowest.
struct Variables {
  __m128i abef, cdgh;
};

OPENLORA_SHA256_TARGET inline Variables Load(const uint32_t* s) {
  const auto lanes = [](uint32_t high, uint32_t b, uint32_t c, uint32_t low) {
    return _mm_set_epi32(static_cast<int>(high), static_cast<int>(b), static_cast<int>(c), static_cast<int>(low));
  };
  return {lanes(s[0], s[1], s[4], s[5]), lanes(s[2], s[3], s[6], s[7])};
}

OPENLORA_SHA256_TARGET inline void Store(const Variables& v, uint32_t* s) {
  uint32_t feba[4], hgdc[4];
  _mm_storeu_si128(reinterpret_cast<__m128i*>(feba), v.abef);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(hgdc), v.cdgh);
  const uint32_t all[8] = {feba[3], feba[2], hgdc[3], hgdc[2], feba[1], feba[0], hgdc[1], hgdc[0]};
  for (int i = 0; i < 8; ++i) s[i] = all[i];
}

OPENLORA_SHA256_TARGET inline Variables Add(const Variables& a, const Variables& b) {
  return {_mm_add_epi32(a.abef, b.abef), _mm_add_epi32(a.cdgh, b.cdgh)};
}

OPENLORA_SHA256_TARGET inline Words LoadWords(const uint8_t* bytes) {
  const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
  return _mm_shuffle_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)), swap);
}

// Words t to t + 3 from t - 16 to t - 1.
OPENLORA_SHA256_TARGET inline Words NextWords(Words t16, Words t12, Words t8, Words t4) {
  const __m128i t7 = _mm_alignr_epi8(t4, t8, 4);
  return _mm_sha256msg2_epu32(_mm_add_epi32(_mm_sha256msg1_epu32(t16, t12), t7), t4);
}

// sha256rnds2 does two rounds with the sums in its low half, and gives a, b, e, f: those from before are c, d, g, h
// then.
OPENLORA_SHA256_TARGET inline void FourRounds(Variables* v, Words words, const uint32_t* constants) {
  const __m128i sums = _mm_add_epi32(words, _mm_load_si128(reinterpret_cast<const __m128i*>(constants)));
  v->cdgh = _mm_sha256rnds2_epu32(v->cdgh, v->abef, sums);
  v->abef = _mm_sha256rnds2_epu32(v->abef, v->cdgh, _mm_unpackhi_epi64(sums, sums));
}

#else  // aarch64

constexpr const char* kName = "sha2";

bool HasInstructions() {
#if defined(__APPLE__)
  return true;  // every Apple processor that runs macOS
#else
  return (HardwareCapabilities() >> 6 & 1) != 0;  // HWCAP_SHA2
#endif
}

using Words = uint32x4_t;  // four of the schedule, the first in the lowest lane

struct Variables {
  uint32x4_t abcd, efgh;
};

OPENLORA_SHA256_TARGET inline Variables Load(const uint32_t* s) { return {vld1q_u32(s), vld1q_u32(s + 4)}; }

OPENLORA_SHA256_TARGET inline void Store(const Variables& v, uint32_t* s) {
  vst1q_u32(s, v.abcd);
  vst1q_u32(s + 4, v.efgh);
}

OPENLORA_SHA256_TARGET inline Variables Add(const Variables& a, const Variables& b) {
  return {vaddq_u32(a.abcd, b.abcd), vaddq_u32(a.efgh, b.efgh)};
}

OPENLORA_SHA256_TARGET inline Words LoadWords(const uint8_t* bytes) {
  return vreinterpretq_u32_u8(vrev32q_u8(vld1q_u8(bytes)));
}

// Words t to t + 3 from t - 16 to t - 1.
OPENLORA_SHA256_TARGET inline Words NextWords(Words t16, Words t12, Words t8, Words t4) {
  return vsha256su1q_u32(vsha256su0q_u32(t16, t12), t8, t4);
}

OPENLORA_SHA256_TARGET inline void FourRounds(Variables* v, Words words, const uint32_t* constants) {
  const uint32x4_t sums = vaddq_u32(words, vld1q_u32(constants)), abcd = v->abcd;
  v->abcd = vsha256hq_u32(abcd, v->efgh, sums);
  v->efgh = vsha256h2q_u32(v->efgh, abcd, sums);
}

#endif

OPENLORA_SHA256_TARGET void Blocks(uint32_t* state, const uint8_t* blocks, size_t count) {
  Variables sum = Load(state);
  for (const uint8_t* block = blocks; block < blocks + count * kSha256BlockBytes; block += kSha256BlockBytes) {
    Words w0 = LoadWords(block), w1 = LoadWords(block + 16), w2 = LoadWords(block + 32), w3 = LoadWords(block + 48);
    Variables v = sum;
    const uint32_t* constants = kSha256Round;
    for (int i = 0; i < 3; ++i, constants += 16) {
      FourRounds(&v, w0, constants);
      w0 = NextWords(w0, w1, w2, w3);
      FourRounds(&v, w1, constants + 4);
      w1 = NextWords(w1, w2, w3, w0);
      FourRounds(&v, w2, constants + 8);
      w2 = NextWords(w2, w3, w0, w1);
      FourRounds(&v, w3, constants + 12);
      w3 = NextWords(w3, w0, w1, w2);
    }
    FourRounds(&v, w0, constants);
    FourRounds(&v, w1, constants + 4);
    FourRounds(&v, w2, constants + 8);
    FourRounds(&v, w3, constants + 12);
    sum = Add(sum, v);
  }
  Store(sum, state);
}

}  // namespace

Sha256Way Sha256WayOfProcessor() { return {kName, HasInstructions() ? Blocks : nullptr}; }

#endif

}  // namespace openlora
