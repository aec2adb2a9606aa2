// What compilers spell differently: inlining, unrolling, prefetching, bit counts; and which
// processor the code is for. GCC, Clang and clang-cl compile this folder.
#pragma once

#include <cfloat>
#include <cstdint>

#if !defined(__GNUC__) && !defined(__clang__)
#error "mmcl-fast is compiled by GCC, Clang or, on Windows, clang-cl"
#endif

// The results of this folder are defined bit by bit: the value of an expression is the one that
// IEEE 754 gives it, operation by operation. Whether products and sums are fused shows at run time
// alone (contraction.h).
#if defined(__FAST_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__)
#error "mmcl-fast needs exact floating-point arithmetic: compile without -ffast-math"
#endif
static_assert(FLT_EVAL_METHOD == 0, "float arithmetic must not be of a wider type");

#if defined(__x86_64__) || defined(_M_X64)
#define MMCL_X86_64 1
#elif defined(__aarch64__) || defined(_M_ARM64)
#define MMCL_ARM64 1
#endif

#define MMCL_INLINE inline __attribute__((always_inline))
// Behind the parameters of a lambda.
#define MMCL_INLINE_LAMBDA __attribute__((always_inline))

// Before a loop: its body, up to `count` times.
#define MMCL_UNROLL(count) MMCL_PRAGMA(GCC unroll count)
#define MMCL_PRAGMA(text) _Pragma(#text)

namespace mmcl {

// Static, as units.h asks.
static MMCL_INLINE void prefetch(const void* address) { __builtin_prefetch(address); }
static MMCL_INLINE int count_bits(std::uint32_t x) { return __builtin_popcount(x); }
static MMCL_INLINE int lowest_bit(std::uint32_t x) { return __builtin_ctz(x); }  // x is not 0

}  // namespace mmcl
