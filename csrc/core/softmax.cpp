#include "softmax.h"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "default_floats.h"
#include "parallel.h"
#include "softmax_constants.h"

namespace mmcl {
namespace {

// A thread costs more than it saves on fewer elements.
constexpr std::uint64_t kElementsPerThread = std::uint64_t{1} << 17;
constexpr std::size_t kColumnUnit = 64;  // columns are split among threads in whole cache lines

// Calls work(begin, end) for each part of `items` on a thread, in the default floating-point mode.
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

float raise(float max, float candidate) {
  return (candidate > max ? candidate : max) + 0.0f;  // no -0: which zero won is chance
}

// Not-a-number stays.
void raise_to_lowest(float* max, std::size_t n) {
  for (std::size_t j = 0; j < n; ++j) max[j] = max[j] < kLowestMax ? kLowestMax : max[j];
}

// The row after row i, from column j on; the last is followed by itself.
template <class T>
const float* next_row(const Matrix<T>& m, std::size_t i, std::size_t j) {
  return m.row(i + 1 < m.rows ? i + 1 : i) + j;
}

float* row_or_null(const Matrix<float>& terms, std::size_t i, std::size_t j) {
  return terms.data == nullptr ? nullptr : terms.row(i) + j;
}

// Column sums of up to kSegment columns: add(row, group) adds a row's terms to `group`.
template <class Add>
void sum_columns(std::size_t rows, std::size_t n, float* sum, const Add& add) {
  double wide[kSegment] = {};
  alignas(64) float group[kSegment];
  for (std::size_t begin = 0; begin < rows; begin += kRowGroup) {
    std::fill(group, group + n, 0.0f);
    const std::size_t end = std::min(begin + kRowGroup, rows);
    for (std::size_t i = begin; i < end; ++i) add(i, group);
    for (std::size_t j = 0; j < n; ++j) wide[j] += double{group[j]};
  }
  for (std::size_t j = 0; j < n; ++j) sum[j] = static_cast<float>(wide[j]);
}

}  // namespace

void softmax_rows(const Target& target, const Matrix<const float>& scores,
                  const Matrix<float>& terms, const MaxSum& rows, int threads) {
  const SoftmaxKernels& k = target.softmax;
  split(scores.rows, elements(scores), threads, [&](std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) {
      const float* const s = scores.row(i);
      const float max = raise(rows.max[i], k.row_largest(s, s, scores.columns));
      double sum = 0.0;
      for_each_segment(0, scores.columns, [&](std::size_t j, std::size_t n) {
        sum += double{k.row_terms(s + j, next_row(scores, i, j), row_or_null(terms, i, j), n, max)};
      });
      rows.max[i] = max;
      rows.sum[i] = static_cast<float>(sum);
    }
  });
}

void softmax_columns(const Target& target, const Matrix<const float>& scores,
                     const Matrix<float>& terms, const MaxSum& columns, int threads) {
  const SoftmaxKernels& k = target.softmax;
  const std::size_t units = (scores.columns + kColumnUnit - 1) / kColumnUnit;
  split(units, elements(scores), threads, [&](std::size_t begin, std::size_t end) {
    const std::size_t last = std::min(end * kColumnUnit, scores.columns);
    for_each_segment(begin * kColumnUnit, last, [&](std::size_t j, std::size_t n) {
      float* const max = columns.max + j;
      raise_to_lowest(max, n);
      for (std::size_t i = 0; i < scores.rows; ++i)
        k.column_largest(scores.row(i) + j, next_row(scores, i, j), n, max);
      sum_columns(scores.rows, n, columns.sum + j, [&](std::size_t i, float* group) {
        k.column_terms(scores.row(i) + j, next_row(scores, i, j), row_or_null(terms, i, j), n, max,
                       group);
      });
    });
  });
}

void softmax_both(const Target& target, const Matrix<const float>& scores, const MaxSum& rows,
                  const MaxSum& columns, int threads) {
  const SoftmaxKernels& k = target.softmax;
  const std::size_t segments = (scores.columns + kSegment - 1) / kSegment;
  std::vector<float> part(segments * scores.rows);  // per segment: a row's maximum, then its sum
  const auto sweep = [&](auto work) {
    split(segments, elements(scores), threads, [&](std::size_t begin, std::size_t end) {
      for (std::size_t segment = begin; segment < end; ++segment) {
        const std::size_t j = segment * kSegment;
        work(j, std::min(kSegment, scores.columns - j), part.data() + segment * scores.rows);
      }
    });
  };
  sweep([&](std::size_t j, std::size_t n, float* row_part) {
    raise_to_lowest(columns.max + j, n);
    for (std::size_t i = 0; i < scores.rows; ++i) {
      row_part[i] = k.both_largest(scores.row(i) + j, next_row(scores, i, j), n, columns.max + j);
    }
  });
  for (std::size_t i = 0; i < scores.rows; ++i) {
    float largest = kLowestMax;
    for (std::size_t segment = 0; segment < segments; ++segment) {
      largest = std::max(largest, part[segment * scores.rows + i]);
    }
    rows.max[i] = raise(rows.max[i], largest);
  }
  sweep([&](std::size_t j, std::size_t n, float* row_part) {
    sum_columns(scores.rows, n, columns.sum + j, [&](std::size_t i, float* group) {
      row_part[i] = k.both_terms(scores.row(i) + j, next_row(scores, i, j), n, rows.max[i],
                                 columns.max + j, group);
    });
  });
  for (std::size_t i = 0; i < scores.rows; ++i) {
    double sum = 0.0;
    for (std::size_t segment = 0; segment < segments; ++segment) {
      sum += double{part[segment * scores.rows + i]};
    }
    rows.sum[i] = static_cast<float>(sum);
  }
}

void softmax_weights(const Target& target, const Matrix<float>& scores, const MaxScale& rows,
                     const MaxScale* columns, int threads) {
  const SoftmaxKernels& k = target.softmax;
  split(scores.rows, elements(scores), threads, [&](std::size_t first, std::size_t last) {
    // In tiles: the maxima and scales of a tile's columns stay in the first-level cache.
    for (std::size_t begin = first; begin < last; begin += kRowGroup) {
      const std::size_t end = std::min(begin + kRowGroup, last);
      for_each_segment(0, scores.columns, [&](std::size_t j, std::size_t n) {
        for (std::size_t i = begin; i < end; ++i) {
          float* const s = scores.row(i) + j;
          if (columns == nullptr) {
            k.row_weights(s, next_row(scores, i, j), n, rows.max[i], rows.scale[i]);
          } else {
            k.both_weights(s, next_row(scores, i, j), n, rows.max[i], rows.scale[i],
                           columns->max + j, columns->scale + j);
          }
        }
      });
    }
  });
}

void softplus_rows(const Target& target, const Matrix<float>& scores, float* sum, int threads) {
  constexpr double kLog2 = 0x1.62e42fefa39efp-1;
  split(scores.rows, elements(scores), threads, [&](std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) {
      double row_sum = 0.0;
      for_each_segment(0, scores.columns, [&](std::size_t j, std::size_t n) {
        row_sum += double{target.softmax.softplus(scores.row(i) + j, next_row(scores, i, j), n)};
      });
      sum[i] = static_cast<float>(row_sum * kLog2);
    }
  });
}

}  // namespace mmcl
