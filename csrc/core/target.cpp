#include "target.h"

#include <cstdlib>
#include <stdexcept>

#include "compiler.h"
#include "contraction.h"
#include "default_floats.h"

#if defined(MMCL_X86_64)
#include <cpuid.h>
#endif

namespace mmcl {

extern const Target kPlainTarget, kAvx2Target, kAvx512Target, kNeonTarget;

namespace {

#if defined(MMCL_X86_64)
constexpr bool has_bits(std::uint64_t x, std::uint64_t mask) { return (x & mask) == mask; }

// The vector state that the operating system saves; reading it faults unless CPUID says OSXSAVE.
std::uint64_t enabled_state() {
  std::uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return std::uint64_t{high} << 32 | low;
}

std::vector<const Target*> detect() {
  std::vector<const Target*> available{&kPlainTarget};
  constexpr std::uint32_t kFma = 1u << 12, kOsxsave = 1u << 27, kAvx = 1u << 28;
  constexpr std::uint32_t kAvx2 = 1u << 5, kF = 1u << 16, kDq = 1u << 17, kBw = 1u << 30,
                          kVl = 1u << 31;
  constexpr std::uint64_t kYmmState = 0x06, kZmmState = 0xe6;
  std::uint32_t a, b, c, d, leaf7 = 0;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !has_bits(c, kFma | kOsxsave | kAvx)) return available;
  if (__get_cpuid_count(7, 0, &a, &leaf7, &c, &d) == 0) return available;
  const std::uint64_t state = enabled_state();
  if (!has_bits(state, kYmmState) || !has_bits(leaf7, kAvx2)) return available;
  available.push_back(&kAvx2Target);
  if (!has_bits(state, kZmmState) || !has_bits(leaf7, kF | kDq | kBw | kVl)) return available;
  available.push_back(&kAvx512Target);
  return available;
}
#elif defined(MMCL_ARM64)
std::vector<const Target*> detect() { return {&kPlainTarget, &kNeonTarget}; }
#else
std::vector<const Target*> detect() { return {&kPlainTarget}; }
#endif

void require_exact_arithmetic(const std::vector<const Target*>& available) {
  const DefaultFloats environment;  // the comparison is of results rounded to nearest
  std::string where = fuses() ? "csrc/core" : "";
  for (const Target* target : available) {
    if (where.empty() && target->fuses()) where = "target " + std::string(target->name);
  }
  if (where.empty()) return;
  throw std::runtime_error(where + " was compiled to fuse products and sums, so that its results " +
                           "are not those of other machines: compile with -ffp-contract=off");
}

const Target& named(const std::string& name, const char* source) {
  std::string known;
  for (const Target* target : targets()) {
    if (name == target->name) return *target;
    known += (known.empty() ? "" : ", ") + std::string(target->name);
  }
  throw std::invalid_argument(std::string(source) + ": expected one of auto, " + known +
                              " (what this machine can run), got '" + name + "'");
}

const Target& automatic() {
  static const Target& chosen = []() -> const Target& {
    const char* forced = std::getenv("MMCL_CPU_TARGET");
    if (forced == nullptr || std::string(forced).empty() || std::string(forced) == "auto") {
      return *targets().back();
    }
    return named(forced, "MMCL_CPU_TARGET");
  }();
  return chosen;
}

}  // namespace

std::vector<const Target*> targets() {
  static const std::vector<const Target*> available = [] {
    auto found = detect();
    require_exact_arithmetic(found);
    return found;
  }();
  return available;
}

const Target& find_target(const std::string& name) {
  return name == "auto" ? automatic() : named(name, "target");
}

}  // namespace mmcl
