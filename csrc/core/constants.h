// Constants of docs/stream.md: Philox4x32-10, the dimension order and the normal transform.
//
// Everything here is constexpr and without functions, so that files compiled for different
// instruction sets share no code that a linker could pick from the wrong one.
#pragma once

#include <cstdint>

namespace mmcl {

// Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
constexpr std::uint32_t kPhiloxM0 = 0xD2511F53u, kPhiloxM1 = 0xCD9E8D57u;
constexpr std::uint32_t kPhiloxW0 = 0x9E3779B9u, kPhiloxW1 = 0xBB67AE85u;
constexpr int kRounds = 10;

constexpr int kTile = 256;  // dimensions that share 64 consecutive blocks
constexpr int kLanes = 64;  // blocks of a tile; also the distance of the four dimensions of a block

constexpr std::int32_t kLogSplit = 1518500249;  // floor(2^31 / sqrt 2)
constexpr std::int32_t kLogBits = 0x3f3504f3;   // bits of float(sqrt(1/2))
constexpr std::int32_t kMantissa = 0x7fffff;
constexpr float kMinus2Ln2 = -0x1.62e43p+0f;
constexpr int kLogTerms = 9, kSinTerms = 4, kCosTerms = 5;
// Printed by csrc/tools/fit_transform.py; lowest degree first.
constexpr float kLog[kLogTerms] = {-0x1p+1f,        0x1.fffffap-1f, -0x1.5556f2p-1f,
                                   0x1.0004aep-1f,  -0x1.98d33p-2f, 0x1.535aaap-2f,
                                   -0x1.317ee4p-2f, 0x1.251124p-2f, -0x1.660338p-3f};
constexpr float kSin[kSinTerms] = {0x1.921fb6p-1f, -0x1.4abc22p-4f, 0x1.467fdcp-9f,
                                   -0x1.32f65cp-15f};
constexpr float kCos[kCosTerms] = {0x1p+0f, -0x1.3bd3ccp-2f, 0x1.03c1bp-6f, -0x1.55b2b6p-12f,
                                   0x1.d4f7eap-19f};

}  // namespace mmcl
