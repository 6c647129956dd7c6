// The steps below a stage, for NumPy: what the tests beside this file call. Shapes and meanings stand in the headers.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "cpu/eigenvalues.h"
#include "cpu/inverse_sqrt.h"
#include "cpu/tridiagonal.h"
#include "quadrature.h"
#include "quintics.h"

namespace py = pybind11;

namespace svmax::SVMAX_ISA {
namespace {

template <typename T>
using ArrayOf = py::array_t<T, py::array::c_style>;
using Array = ArrayOf<double>;

// Memory for a step to write. In the library it is never initialised; here it is NaN, so that a number which is read
// before it is written shows, with a guard on either side, so that a write beyond the ends does too.
template <typename T>
class Scratch {
 public:
  explicit Scratch(int64_t count) : count_(count), memory_(size_t(count + 2 * kGuard), kNaN) {}

  T* data() { return memory_.data() + kGuard; }
  Array array(std::vector<py::ssize_t> shape) {
    check();
    Array copy(shape);
    for (int64_t i = 0; i < copy.size(); ++i) copy.mutable_data()[i] = double(data()[i]);
    return copy;
  }
  void check() const {
    for (int64_t i = 0; i < kGuard; ++i)
      if (!std::isnan(memory_[size_t(i)]) || !std::isnan(memory_[size_t(kGuard + count_ + i)]))
        throw std::runtime_error("a step wrote beyond the ends of its memory");
  }

 private:
  static constexpr int64_t kGuard = 64;
  static constexpr T kNaN = std::numeric_limits<T>::quiet_NaN();
  int64_t count_;
  std::vector<T> memory_;
};

void require(bool holds, const char* what) {
  if (!holds) throw std::invalid_argument(what);
}

// T's two vectors, as every step takes them: [n] both, with off[n - 1] = 0.
struct Diagonals {
  const double *diagonal, *off;
  int64_t n;

  Diagonals(const Array& diagonal, const Array& off) : diagonal(diagonal.data()), off(off.data()), n(diagonal.size()) {
    require(diagonal.ndim() == 1 && off.ndim() == 1 && n > 0 && off.size() == n, "diagonal and off must be [n], n > 0");
    require(this->off[n - 1] == 0, "off[n - 1] must be 0");
  }
};

template <typename T>
int64_t side(const ArrayOf<T>& square) {
  require(square.ndim() == 2 && square.shape(0) == square.shape(1) && square.size() > 0, "needs [n, n], n > 0");
  return square.shape(0);
}

// The parts of a step one after the other, each as small as it may be, the last first: as good an order as any.
int64_t parts_run = 0;
void backwards(int64_t count, int64_t grain, Pool::Body body, void* context) {
  for (int64_t end = count; end > 0; end -= grain, ++parts_run) body(larger(end - grain, 0), end, context);
}
Pool pool_of(bool in_parts) { return in_parts ? Pool{backwards, 2} : Pool{nullptr, 1}; }

const QuadratureTable& quadrature_table() {
  static const QuadratureTable table;
  return table;
}

Array array_of(const double* data, int64_t count) { return Array(count, data); }

// ---- quadrature.h

py::tuple rule(int octave) {
  require(octave >= 0 && octave <= kOctaves, "no such octave");
  const Quadrature& rule = quadrature_table().octave[octave];
  return py::make_tuple(array_of(rule.pole, rule.count), array_of(rule.weight, rule.count));
}

py::tuple pole(int j, int count, double m) {
  const Pole at = quadrature_pole(j, count, m, Mean(m));
  return py::make_tuple(at.pole, at.weight);
}

// ---- cpu/tridiagonal.h

py::tuple reflector(const Array& x) {
  Scratch<double> u(x.size());
  std::memcpy(u.data(), x.data(), size_t(x.size()) * sizeof(double));
  double off, beta;
  make_reflector(u.data(), x.size(), &off, &beta);
  return py::make_tuple(u.array({x.size()}), off, beta);
}

py::tuple decomposition(const Array& g) {
  const int64_t n = side(g);
  Scratch<double> memory(Panels<double>::size(n));
  const Panels<double> panels(memory.data(), n);
  panels.read_symmetric(g.data());
  const int64_t row = leading_dimension<double>(panels.rows);
  Scratch<double> reflectors(n * row), diagonal(n), off(n), beta(n), work(3 * row);
  tridiagonalize(panels, reflectors.data(), row, diagonal.data(), off.data(), beta.data(), work.data());
  memory.check();
  work.check();
  return py::make_tuple(diagonal.array({n}), off.array({n}), beta.array({n}), reflectors.array({n, row}));
}

// ---- cpu/eigenvalues.h

Array eigenvalues(const Array& diagonal, const Array& off) {
  const Diagonals t(diagonal, off);
  Scratch<double> values(t.n), couplings(t.n);
  std::memcpy(values.data(), t.diagonal, size_t(t.n) * sizeof(double));
  std::memcpy(couplings.data(), t.off, size_t(t.n - 1) * sizeof(double));  // the last couples nothing: it stays NaN
  tridiagonal_eigenvalues(values.data(), couplings.data(), t.n);
  couplings.check();
  return values.array({t.n});
}

// ---- cpu/inverse_sqrt.h

int64_t definite(const Array& diagonal, const Array& off, const Array& sigma) {
  const Diagonals t(diagonal, off);
  require(sigma.size() == kTogether, "sigma must have as many entries as are worked on together");
  Together shifts;
  std::memcpy(&shifts, sigma.data(), sizeof shifts);
  return count_definite(t.diagonal, t.off, t.n, shifts);
}

Poles poles(const Array& diagonal, const Array& off) {
  const Diagonals t(diagonal, off);
  Poles poles;
  choose_poles(t.diagonal, t.off, t.n, quadrature_table(), poles);
  return poles;
}

double trace_of_inverse(const Array& diagonal, const Array& off, double shift) {
  const Diagonals t(diagonal, off);
  return inverse_trace(t.diagonal, t.off, t.n, shift);
}

py::tuple factors(const Array& diagonal, const Array& off, const Poles& poles) {
  const Diagonals t(diagonal, off);
  Scratch<double> ratio(t.n * poles.stride), inverse(t.n * poles.stride);
  const double trace = factor_poles(t.diagonal, t.off, t.n, poles, ratio.data(), inverse.data());
  return py::make_tuple(trace, ratio.array({t.n, poles.stride}), inverse.array({t.n, poles.stride}));
}

template <typename T>
Array sum(const Poles& poles, const Array& ratio, const Array& inverse, bool in_parts) {
  const int64_t n = ratio.shape(0);
  require(ratio.ndim() == 2 && ratio.shape(1) == poles.stride && inverse.ndim() == 2 && inverse.shape(0) == n &&
              inverse.shape(1) == poles.stride,
          "ratio and inverse must be [n, poles.stride]");
  Scratch<T> memory(Panels<T>::size(n));
  const Panels<T> f(memory.data(), n);
  sum_poles(poles, ratio.data(), inverse.data(), f, pool_of(in_parts));
  memory.check();
  Array out({n, n});
  f.write_symmetric(1.0, out.mutable_data());
  // The blocks on the diagonal as they are: back_transform reads both halves of them.
  for (int64_t i = 0; i < n; ++i)
    for (int64_t k = i / f.kColumns * f.kColumns; k < smaller(round_up(i + 1, f.kColumns), n); ++k)
      out.mutable_at(i, k) = double(f.element(i, k));
  return out;
}

// Q F Q' in F's type, as float64.
template <typename T>
Array transformed(const ArrayOf<T>& f, const Array& reflectors, const Array& beta, int64_t group, bool in_parts) {
  const int64_t n = side(f);
  require(reflectors.ndim() == 2 && reflectors.shape(0) == n && reflectors.shape(1) >= n && beta.size() == n,
          "reflectors must be [n, row] with row >= n, and beta [n]");
  Scratch<T> memory(Panels<T>::size(n));
  const Panels<T> w(memory.data(), n);
  w.read_symmetric(f.data());
  Buffer<T> buffer;
  const int64_t plenty = 16 * group * (leading_dimension<T>(w.rows) + group);
  T* scratch = buffer.reserve(plenty);
  for (int64_t i = 0; i < plenty; ++i) scratch[i] = std::numeric_limits<T>::quiet_NaN();
  const auto transform = [&]<int64_t P>(std::integral_constant<int64_t, P>) {
    back_transform<P>(w, reflectors.data(), reflectors.shape(1), beta.data(), buffer, pool_of(in_parts));
  };
  if (group == 16)
    transform(std::integral_constant<int64_t, 16>{});
  else if (group == 32)
    transform(std::integral_constant<int64_t, 32>{});
  else
    throw std::invalid_argument("group must be 16 or 32, as in spectral.h");
  memory.check();
  Array out({n, n});
  w.write_symmetric(1.0, out.mutable_data());
  return out;
}

// ---- quintics.h

py::tuple row_of(const Quintic& p) { return py::make_tuple(p.a, p.b, p.c); }

py::list quintics(int rounds) {
  py::list rows;
  for (int round = 0; round < rounds; ++round) rows.append(row_of(quintic(round, rounds)));
  return rows;
}

}  // namespace

PYBIND11_MODULE(SVMAX_STEPS, m) {
  using py::arg;

  m.attr("VECTOR_BYTES") = kVectorBytes;  // says for which instruction set this was compiled

  m.def("parts_run", [] { return parts_run; });

  m.attr("OCTAVES") = kOctaves;
  m.attr("MOST_POLES") = kMostPoles;
  m.def("pole_count", &pole_count, arg("log_ratio"));
  m.def("quarter_period", [](double m) { return Mean(m).quarter_period(); }, arg("m"));
  m.def("quadrature_pole", &pole, arg("j"), arg("count"), arg("m"));
  m.def("rule", &rule, arg("octave"));

  m.def("make_reflector", &reflector, arg("x"));
  m.def("tridiagonalize", &decomposition, arg("g"));
  m.def("tridiagonal_eigenvalues", &eigenvalues, arg("diagonal"), arg("off"));

  m.attr("TOGETHER") = kTogether;
  py::class_<Poles>(m, "Poles")
      .def_readonly("shift", &Poles::shift)
      .def_readonly("highest", &Poles::highest)
      .def_readonly("lowest", &Poles::lowest)
      .def_readonly("count", &Poles::count)
      .def_readonly("stride", &Poles::stride)
      .def_property_readonly("pole", [](const Poles& p) { return array_of(p.pole, p.stride); })
      .def_property_readonly("weight", [](const Poles& p) { return array_of(p.weight, p.stride); });
  m.def("count_definite", &definite, arg("diagonal"), arg("off"), arg("sigma"));
  m.def("choose_poles", &poles, arg("diagonal"), arg("off"));
  m.def("inverse_trace", &trace_of_inverse, arg("diagonal"), arg("off"), arg("shift"));
  m.def("factor_poles", &factors, arg("diagonal"), arg("off"), arg("poles"));
  m.def("sum_poles", &sum<double>, arg("poles"), arg("ratio"), arg("inverse"), arg("in_parts") = false);
  m.def("sum_poles_in_float", &sum<float>, arg("poles"), arg("ratio"), arg("inverse"), arg("in_parts") = false);
  m.def("back_transform", &transformed<double>, arg("f").noconvert(), arg("reflectors"), arg("beta"), arg("group"),
        arg("in_parts") = false);
  m.def("back_transform", &transformed<float>, arg("f").noconvert(), arg("reflectors"), arg("beta"), arg("group"),
        arg("in_parts") = false);

  py::list table;
  for (const Quintic& p : kQuintics) table.append(row_of(p));
  m.attr("QUINTICS") = table;
  m.def("quintics", &quintics, arg("rounds"));
  m.attr("ROUNDS") = kRounds;
  m.attr("ROUNDS_OF_GRAM") = kRoundsOfGram;
  m.attr("ROUNDS_BEFORE_RESTART") = kRoundsBeforeRestart;
  m.attr("SHIFT_OF_GRAM") = kShiftOfGram;
  m.attr("MARGIN") = kMargin;
}

}  // namespace svmax::SVMAX_ISA
