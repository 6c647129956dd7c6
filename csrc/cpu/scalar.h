// The element types of the input. float16 and bfloat16 are read and written bit by bit: the stage headers know no
// torch, and not every compiler we accept has these types.
#pragma once
#include <cstdint>
#include <cstring>

namespace svmax::SVMAX_ISA {

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

inline float float_of_bits(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}
inline uint32_t bits_of_float(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

inline double to_double(double x) { return x; }
inline double to_double(float x) { return double(x); }
inline double to_double(BFloat16 x) { return double(float_of_bits(uint32_t(x.bits) << 16)); }
inline double to_double(Half x) {
  const uint32_t sign = uint32_t(x.bits & 0x8000u) << 16, magnitude = x.bits & 0x7fffu;
  // Moving the 10 bits of the fraction under float32's 23 leaves an exponent that is 112 too small. A product by 2^112
  // mends it, and turns half's subnormal numbers into ordinary ones; the largest exponent means inf or NaN.
  const float moved = float_of_bits(magnitude << 13) * float_of_bits((112u + 127u) << 23);
  const uint32_t special = magnitude >= 0x7c00u ? 0x7f800000u : 0u;
  return double(float_of_bits(sign | bits_of_float(moved) | special));
}

template <typename scalar_t>
scalar_t from_double(double x);
template <>
inline double from_double<double>(double x) {
  return x;
}
template <>
inline float from_double<float>(double x) {
  return float(x);
}
template <>
inline BFloat16 from_double<BFloat16>(double x) {
  const uint32_t bits = bits_of_float(float(x));
  if (x != x) return {uint16_t((bits >> 16) | 0x40u)};              // stays a NaN
  return {uint16_t((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};  // to nearest, ties to even
}
template <>
inline Half from_double<Half>(double x) {
  const float value = float(x);
  const uint32_t bits = bits_of_float(value), sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7fffffffu;
  if (x != x) return {uint16_t(sign | 0x7e00u)};
  if (magnitude >= 0x477ff000u) return {uint16_t(sign | 0x7c00u)};  // 65520 and above round to inf
  if (magnitude < 0x38800000u) {                                    // below 2^-14: subnormal in half
    // Adding 0.5 puts the unit of half's subnormal numbers, 2^-24, at float32's last bit, and rounds to even there.
    const float shifted = float_of_bits(magnitude) + 0.5f;
    return {uint16_t(sign | (bits_of_float(shifted) - bits_of_float(0.5f)))};
  }
  const uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
  return {uint16_t(sign | ((rounded - (112u << 23)) >> 13))};
}

}  // namespace svmax::SVMAX_ISA
