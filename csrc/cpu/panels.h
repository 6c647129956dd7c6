// The lower half of a symmetric float64 matrix in panels of columns, each contiguous: how G goes from `gram` to
// `spectral`.
#pragma once
#include "pool.h"
#include "product.h"

namespace svmax::SVMAX_ISA {

constexpr int64_t kPanelColumns = 2 * kLanes<double>;  // two registers

// Panel q has the columns [q kPanelColumns, ..) and all rows, of which those from the diagonal block on are used. The
// diagonal blocks are whole, so that no loop has a ragged edge; columns past n are zero.
struct Panels {
  double* data;
  int64_t n, rows;  // rows: n rounded up to kPanelColumns

  static int64_t size(int64_t n) { return round_up(n, kPanelColumns) * round_up(n, kPanelColumns); }
  Panels(double* memory, int64_t n) : data(memory), n(n), rows(round_up(n, kPanelColumns)) {}

  // Row i of the panel that begins with column j.
  double* at(int64_t i, int64_t j) const { return data + j * rows + i * kPanelColumns; }
  double& element(int64_t i, int64_t j) const { return at(i, j / kPanelColumns * kPanelColumns)[j % kPanelColumns]; }

  void clear_padding() const {
    if (n < rows) std::memset(at(0, rows - kPanelColumns), 0, size_t(rows * kPanelColumns) * sizeof(double));
  }

  void read_symmetric(const double* g) const {  // g [n, n], contiguous
    clear_padding();
    for (int64_t j = 0; j < n; j += kPanelColumns)
      for (int64_t i = j; i < n; ++i)
        std::memcpy(at(i, j), g + i * n + j, size_t(smaller(kPanelColumns, n - j)) * sizeof(double));
  }

  void write_symmetric(double* g) const {  // g [n, n], contiguous
    for (int64_t j = 0; j < n; j += kPanelColumns)
      for (int64_t i = j; i < n; ++i)
        for (int64_t c = 0; c < smaller(kPanelColumns, i + 1 - j); ++c)
          g[i * n + j + c] = g[(j + c) * n + i] = at(i, j)[c];
  }

  void scale(double factor) const {
    for (int64_t j = 0; j < n; j += kPanelColumns)
      for (int64_t k = 0; k < (n - j) * kPanelColumns; ++k) at(j, j)[k] *= factor;
  }
};

// The lower half of g = left'right, or that added to it. left, right: [depth, row], row >= n rounded up to
// kPanelColumns.
inline void add_products(const double* left, const double* right, int64_t row, int64_t depth, const Panels& g,
                         bool accumulate, const Pool& pool) {
  constexpr int64_t kRows = 64;
  // Tiles of kRows rows of a panel, panel by panel, so that a panel of `right` stays in L1.
  const int64_t n = g.n;
  int64_t tiles = 0;
  for (int64_t j = 0; j < n; j += kPanelColumns) tiles += (n - j + kRows - 1) / kRows;
  const int64_t grain = larger(1, kParallelProducts / (kRows * kPanelColumns * depth));
  pool.each(tiles, grain, [=](int64_t begin, int64_t end) {
    int64_t tile = 0;
    for (int64_t j = 0; j < n; j += kPanelColumns)
      for (int64_t i = j; i < n; i += kRows, ++tile)
        if (tile >= begin && tile < end)
          product<double>(smaller(kRows, n - i), smaller(kPanelColumns, n - j), depth, left + i, 1, row, right + j, row,
                          g.at(i, j), kPanelColumns, accumulate);
  });
}

}  // namespace svmax::SVMAX_ISA
