// The floating-point mode that the stream's definition needs, for as long as an object lives.
#pragma once

#include <cfenv>

namespace mmcl {

// The definition fixes rounding to nearest and keeps subnormals; the caller's thread may not, and
// threads inherit from it.
class DefaultFloats {
 public:
  DefaultFloats() {
    std::fegetenv(&saved_);
    std::fesetenv(FE_DFL_ENV);
  }
  ~DefaultFloats() { std::fesetenv(&saved_); }
  DefaultFloats(const DefaultFloats&) = delete;
  DefaultFloats& operator=(const DefaultFloats&) = delete;

 private:
  std::fenv_t saved_;
};

}  // namespace mmcl
