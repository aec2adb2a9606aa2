#include "softmax.h"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "default_floats.h"
#include "parallel.h"
#include "softmax_constants.h"

namespace mmcl {
namespace {

// Less work than this does not pay for starting a thread.
constexpr std::uint64_t kElementsPerThread = std::uint64_t{1} << 17;
constexpr std::size_t kColumnUnit = 64;  // columns are split among threads in whole cache lines

// Calls work(begin, end) on parts of `items` on their threads, in the mode the passes need.
template <class Work>
void split(std::size_t items, std::uint64_t elements, int threads, const Work& work) {
  const auto most = std::max<std::uint64_t>(1, elements / kElementsPerThread);
  const std::uint64_t parts =
      std::min<std::uint64_t>({static_cast<std::uint64_t>(threads), most, items});
  for_each_part(parts, [=, &work](std::uint64_t part) {
    const DefaultFloats environment;
    work(part_begin(part, parts, items), part_begin(part + 1, parts, items));
  });
}

template <class T>
std::uint64_t elements(const Matrix<T>& m) {
  return std::uint64_t{m.rows} * m.columns;
}

// work(column, size) for the segments of columns [begin, end).
template <class Work>
void for_each_segment(std::size_t begin, std::size_t end, const Work& work) {
  for (std::size_t j = begin; j < end; j += kSegment) work(j, std::min(kSegment, end - j));
}

float raise(float top, float candidate) {
  return (candidate > top ? candidate : top) + 0.0f;  // no -0: which zero won is chance
}

// Not-a-number stays.
void raise_to_lowest(float* top, std::size_t n) {
  for (std::size_t j = 0; j < n; ++j) top[j] = top[j] < kLowestTop ? kLowestTop : top[j];
}

// The row after row i, from column j on; the last is followed by itself.
template <class T>
const float* next_row(const Matrix<T>& m, std::size_t i, std::size_t j) {
  return m.row(i + 1 < m.rows ? i + 1 : i) + j;
}

float* row_or_null(const Matrix<float>& terms, std::size_t i, std::size_t j) {
  return terms.data == nullptr ? nullptr : terms.row(i) + j;
}

// Column totals of up to kSegment columns: add(row, sum) adds a row's terms to `sum`.
template <class Add>
void total_columns(std::size_t rows, std::size_t n, float* total, const Add& add) {
  double all[kSegment] = {};
  alignas(64) float sum[kSegment];
  for (std::size_t begin = 0; begin < rows; begin += kRowGroup) {
    std::fill(sum, sum + n, 0.0f);
    const std::size_t end = std::min(begin + kRowGroup, rows);
    for (std::size_t i = begin; i < end; ++i) add(i, sum);
    for (std::size_t j = 0; j < n; ++j) all[j] += double{sum[j]};
  }
  for (std::size_t j = 0; j < n; ++j) total[j] = static_cast<float>(all[j]);
}

}  // namespace

void softmax_rows(const Target& target, const Matrix<const float>& scores,
                  const Matrix<float>& terms, const TopTotal& rows, int threads) {
  const SoftmaxKernels& k = target.softmax;
  split(scores.rows, elements(scores), threads, [&](std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) {
      const float* const s = scores.row(i);
      const float top = raise(rows.top[i], k.row_largest(s, s, scores.columns));
      double total = 0.0;
      for_each_segment(0, scores.columns, [&](std::size_t j, std::size_t n) {
        total +=
            double{k.row_terms(s + j, next_row(scores, i, j), row_or_null(terms, i, j), n, top)};
      });
      rows.top[i] = top;
      rows.total[i] = static_cast<float>(total);
    }
  });
}

void softmax_columns(const Target& target, const Matrix<const float>& scores,
                     const Matrix<float>& terms, const TopTotal& columns, int threads) {
  const SoftmaxKernels& k = target.softmax;
  const std::size_t units = (scores.columns + kColumnUnit - 1) / kColumnUnit;
  split(units, elements(scores), threads, [&](std::size_t begin, std::size_t end) {
    const std::size_t last = std::min(end * kColumnUnit, scores.columns);
    for_each_segment(begin * kColumnUnit, last, [&](std::size_t j, std::size_t n) {
      float* const top = columns.top + j;
      raise_to_lowest(top, n);
      for (std::size_t i = 0; i < scores.rows; ++i)
        k.column_largest(scores.row(i) + j, next_row(scores, i, j), n, top);
      total_columns(scores.rows, n, columns.total + j, [&](std::size_t i, float* sum) {
        k.column_terms(scores.row(i) + j, next_row(scores, i, j), row_or_null(terms, i, j), n, top,
                       sum);
      });
    });
  });
}

void softmax_both(const Target& target, const Matrix<const float>& scores, const TopTotal& rows,
                  const TopTotal& columns, int threads) {
  const SoftmaxKernels& k = target.softmax;
  const std::size_t segments = (scores.columns + kSegment - 1) / kSegment;
  std::vector<float> part(segments * scores.rows);  // of a row's maximum, then of its total
  const auto sweep = [&](auto work) {
    split(segments, elements(scores), threads, [&](std::size_t begin, std::size_t end) {
      for (std::size_t segment = begin; segment < end; ++segment) {
        const std::size_t j = segment * kSegment;
        work(j, std::min(kSegment, scores.columns - j), part.data() + segment * scores.rows);
      }
    });
  };
  sweep([&](std::size_t j, std::size_t n, float* own) {
    raise_to_lowest(columns.top + j, n);
    for (std::size_t i = 0; i < scores.rows; ++i) {
      own[i] = k.both_largest(scores.row(i) + j, next_row(scores, i, j), n, columns.top + j);
    }
  });
  for (std::size_t i = 0; i < scores.rows; ++i) {
    float largest = kLowestTop;
    for (std::size_t segment = 0; segment < segments; ++segment) {
      largest = std::max(largest, part[segment * scores.rows + i]);
    }
    rows.top[i] = raise(rows.top[i], largest);
  }
  sweep([&](std::size_t j, std::size_t n, float* own) {
    total_columns(scores.rows, n, columns.total + j, [&](std::size_t i, float* sum) {
      own[i] = k.both_terms(scores.row(i) + j, next_row(scores, i, j), n, rows.top[i],
                            columns.top + j, sum);
    });
  });
  for (std::size_t i = 0; i < scores.rows; ++i) {
    double total = 0.0;
    for (std::size_t segment = 0; segment < segments; ++segment) {
      total += double{part[segment * scores.rows + i]};
    }
    rows.total[i] = static_cast<float>(total);
  }
}

void softmax_weights(const Target& target, const Matrix<float>& scores, const TopScale& rows,
                     const TopScale* columns, int threads) {
  const SoftmaxKernels& k = target.softmax;
  split(scores.rows, elements(scores), threads, [&](std::size_t first, std::size_t last) {
    // In tiles, whose columns' tops and scales stay in the first-level cache.
    for (std::size_t begin = first; begin < last; begin += kRowGroup) {
      const std::size_t end = std::min(begin + kRowGroup, last);
      for_each_segment(0, scores.columns, [&](std::size_t j, std::size_t n) {
        for (std::size_t i = begin; i < end; ++i) {
          float* const s = scores.row(i) + j;
          if (columns == nullptr) {
            k.row_weights(s, next_row(scores, i, j), n, rows.top[i], rows.scale[i]);
          } else {
            k.both_weights(s, next_row(scores, i, j), n, rows.top[i], rows.scale[i],
                           columns->top + j, columns->scale + j);
          }
        }
      });
    }
  });
}

void softplus_rows(const Target& target, const Matrix<float>& scores, float* total, int threads) {
  constexpr double kLog2 = 0x1.62e42fefa39efp-1;
  split(scores.rows, elements(scores), threads, [&](std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) {
      double sum = 0.0;
      for_each_segment(0, scores.columns, [&](std::size_t j, std::size_t n) {
        sum += double{target.softmax.softplus(scores.row(i) + j, next_row(scores, i, j), n)};
      });
      total[i] = static_cast<float>(sum * kLog2);
    }
  });
}

}  // namespace mmcl
