// A loop over parts, each on a thread of its own.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <system_error>
#include <thread>
#include <vector>

namespace mmcl {

// Calls work(part) for every part below `parts`; part 0 and parts for which no thread can be
// started run on the calling thread. `work` must not throw.
template <class Work>
void for_each_part(std::uint64_t parts, const Work& work) {
  if (parts == 0) return;
  std::vector<std::thread> others;
  others.reserve(parts - 1);
  std::uint64_t started = 1;
  try {
    for (; started < parts; ++started) {
      others.emplace_back([&work, started] { work(started); });
    }
  } catch (const std::system_error&) {
    // No further thread can be started: the remaining parts run here.
  }
  work(0);
  for (std::uint64_t part = started; part < parts; ++part) work(part);
  for (std::thread& other : others) other.join();
}

// Calls work(part, item) for every item; `parts` threads claim items one by one.
template <class Work>
void for_each_item(std::uint64_t parts, std::size_t items, const Work& work) {
  std::atomic<std::size_t> next{0};
  for_each_part(parts, [&](std::uint64_t part) {
    for (std::size_t k = next++; k < items; k = next++) work(part, k);
  });
}

// First item of part `part` of `size` items; parts differ by at most one item.
inline std::uint64_t part_begin(std::uint64_t part, std::uint64_t parts, std::uint64_t size) {
  return size / parts * part + (part < size % parts ? part : size % parts);
}

}  // namespace mmcl
