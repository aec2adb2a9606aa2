// Constants of the passes over scores: polynomials, limits and the shape of their sums.
#pragma once

#include <cstddef>

namespace mmcl {

constexpr int kSumLanes = 32;             // partial sums along a row, whatever the instruction set
constexpr std::size_t kSegment = 1024;    // columns whose sum is float32; segments add in double
constexpr std::size_t kRowGroup = 64;     // the same along a column, in rows
constexpr float kLowestMax = -0x1p+126f;  // lower bound of maxima; masked scores are twice that

constexpr float kSmallestPower = -100.0f;  // 2^x is 0 below
constexpr float kInfinitePower = 129.0f;   // and infinite from there
// Added to x in [-100, 129] it leaves round(x) + 126, the exponent of half of 2^round(x), in the
// lower bits. Half, because 2^127.9 is a float32 and 2^128 is none.
constexpr float kRoundToExponent = 12582912.0f + 126.0f;

// Printed by csrc/tools/fit_transform.py; lowest degree first. 2^r for |r| <= 1/2, and
// log2(1 + z) / z for 0 <= z <= 1.
constexpr int kPowerTerms = 7, kLog1pTerms = 9;
constexpr float kPower[kPowerTerms] = {0x1p+0f,        0x1.62e430p-1f, 0x1.ebfbdcp-3f,
                                       0x1.c6af7ap-5f, 0x1.3b2dd2p-7f, 0x1.5f0948p-10f,
                                       0x1.417a9cp-13f};
constexpr float kLog1p[kLog1pTerms] = {0x1.715476p+0f,  -0x1.7153aap-1f, 0x1.ec3f5ap-2f,
                                       -0x1.6f1facp-2f, 0x1.1aa30cp-2f,  -0x1.952438p-3f,
                                       0x1.d15ecap-4f,  -0x1.6044f4p-5f, 0x1.f57308p-8f};

}  // namespace mmcl
