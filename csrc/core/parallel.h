// A loop over parts, each on a thread of its own.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <system_error>
#include <thread>
#include <vector>

namespace mmcl {

// Calls work(part) for every part below `parts`; part 0 and what the system grants no thread for
// run here. `work` must not throw.
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
    // The system grants no further thread: what is left is done here.
  }
  work(0);
  for (std::uint64_t part = started; part < parts; ++part) work(part);
  for (std::thread& other : others) other.join();
}

// Calls work(part, item) for every item, which `parts` threads take one by one.
template <class Work>
void for_each_item(std::uint64_t parts, std::size_t items, const Work& work) {
  std::atomic<std::size_t> next{0};
  for_each_part(parts, [&](std::uint64_t part) {
    for (std::size_t k = next++; k < items; k = next++) work(part, k);
  });
}

// Where part `part` of `size` items begins; parts differ by at most one item.
inline std::uint64_t part_begin(std::uint64_t part, std::uint64_t parts, std::uint64_t size) {
  return size / parts * part + (part < size % parts ? part : size % parts);
}

}  // namespace mmcl
