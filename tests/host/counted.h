// float64 and float32 as the kernels compute with them: the device's bits, and every operation counted.
//
// No implicit way from one type to the other: what would be a conversion on the device must be written as one.
#pragma once
#include <cmath>
#include <concepts>

#include "runtime.h"

namespace svmax::cuda {

template <typename T>
class Counted {
  static constexpr auto kType = sizeof(T) == sizeof(double) ? &svmax_host::Counters::f64 : &svmax_host::Counters::f32;
  using Operations = svmax_host::Operations;
  static void count(int64_t Operations::* operation) { svmax_host::count(kType, operation); }

 public:
  using Other = Counted<std::conditional_t<std::same_as<T, double>, float, double>>;

  Counted() = default;
  constexpr Counted(T x) : value_(x) {}
  explicit Counted(Other x) : value_(T(x.plain())) {
    svmax_host::count(&svmax_host::Counters::f64, &Operations::convert);
  }
  explicit operator double() const { return double(value_); }
  explicit operator float() const { return float(value_); }
  explicit operator int() const { return int(value_); }
  T plain() const { return value_; }

  friend Counted operator+(Counted a, Counted b) { return count(&Operations::add), Counted(a.value_ + b.value_); }
  friend Counted operator-(Counted a, Counted b) { return count(&Operations::add), Counted(a.value_ - b.value_); }
  friend Counted operator*(Counted a, Counted b) { return count(&Operations::mul), Counted(a.value_ * b.value_); }
  friend Counted operator/(Counted a, Counted b) { return count(&Operations::div), Counted(a.value_ / b.value_); }
  friend Counted operator-(Counted a) { return Counted(-a.value_); }
  Counted& operator+=(Counted b) { return *this = *this + b; }
  Counted& operator-=(Counted b) { return *this = *this - b; }
  Counted& operator*=(Counted b) { return *this = *this * b; }
  Counted& operator/=(Counted b) { return *this = *this / b; }

  friend bool operator==(Counted a, Counted b) { return count(&Operations::compare), a.value_ == b.value_; }
  friend bool operator<(Counted a, Counted b) { return count(&Operations::compare), a.value_ < b.value_; }
  friend bool operator>(Counted a, Counted b) { return count(&Operations::compare), a.value_ > b.value_; }
  friend bool operator<=(Counted a, Counted b) { return count(&Operations::compare), a.value_ <= b.value_; }
  friend bool operator>=(Counted a, Counted b) { return count(&Operations::compare), a.value_ >= b.value_; }

  friend Counted fma(Counted a, Counted b, Counted c) {
    return count(&Operations::fma), Counted(std::fma(a.value_, b.value_, c.value_));
  }
  friend Counted sqrt(Counted a) { return count(&Operations::sqrt), Counted(std::sqrt(a.value_)); }
  friend Counted fabs(Counted a) { return Counted(std::fabs(a.value_)); }
  friend Counted exp(Counted a) { return count(&Operations::other), Counted(std::exp(a.value_)); }
  friend Counted ldexp(Counted a, int exponent) {
    return count(&Operations::other), Counted(std::ldexp(a.value_, exponent));
  }
  friend Counted frexp(Counted a, int* exponent) {
    return count(&Operations::other), Counted(std::frexp(a.value_, exponent));
  }

 private:
  T value_;
};

using f64 = Counted<double>;
using f32 = Counted<float>;

// float32 with a double is float64 arithmetic on the device, and would be float32 here.
template <std::same_as<double> Double>
f32 operator+(f32, Double) = delete;
template <std::same_as<double> Double>
f32 operator-(f32, Double) = delete;
template <std::same_as<double> Double>
f32 operator*(f32, Double) = delete;
template <std::same_as<double> Double>
f32 operator/(f32, Double) = delete;
template <std::same_as<double> Double>
f32 operator+(Double, f32) = delete;
template <std::same_as<double> Double>
f32 operator-(Double, f32) = delete;
template <std::same_as<double> Double>
f32 operator*(Double, f32) = delete;
template <std::same_as<double> Double>
f32 operator/(Double, f32) = delete;

}  // namespace svmax::cuda
