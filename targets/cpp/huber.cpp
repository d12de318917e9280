// Huber's loss as C++ operators for the CPU, of operands of one shape and dtype.
#include <ATen/AccumulateType.h>
#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

namespace {

constexpr int64_t BLOCK = 1024;  // elements that are added in series
constexpr int64_t GRAIN = 32;    // blocks that are worth a thread

// d²/2 where |d| <= delta, else delta·(|d| - delta/2), of x - y; a NaN is in neither piece
template <class Op, class T> Op term(T x, T y, Op delta) {
    const Op d = static_cast<Op>(x) - static_cast<Op>(y), size = std::abs(d);
    return size <= delta ? d * d / 2 : delta * (size - delta / 2);
}

// d where |d| <= delta, else delta with its sign; NaN is kept
template <class Op, class T> Op slope(T x, T y, Op delta) {
    const Op d = static_cast<Op>(x) - static_cast<Op>(y);
    return d > delta ? delta : d < -delta ? -delta : d;
}

// The sum of the terms of each block: the same sums for every number of threads
template <class T, class Acc>
at::Tensor block_sums(const T* x, const T* y, const at::Tensor& like, Acc delta) {
    const int64_t n = like.numel(), blocks = (n + BLOCK - 1) / BLOCK;
    at::Tensor sums = at::empty({blocks}, like.options().dtype(c10::CppTypeToScalarType<Acc>::value));
    Acc* out = sums.data_ptr<Acc>();
    at::parallel_for(0, blocks, GRAIN, [&](int64_t begin, int64_t end) {
        for (int64_t block = begin; block < end; ++block) {
            Acc sum = 0;
            for (int64_t i = block * BLOCK; i < std::min(n, (block + 1) * BLOCK); ++i)
                sum += term<Acc>(x[i], y[i], delta);
            out[block] = sum;
        }
    });
    return sums;
}

at::Tensor huber(const at::Tensor& input, const at::Tensor& target, c10::string_view reduction,
                 double delta) {
    const at::Tensor x = input.contiguous(), y = target.contiguous();
    const int64_t n = x.numel();
    at::Tensor out;
    AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, x.scalar_type(), "huber", [&] {
        const scalar_t *a = x.const_data_ptr<scalar_t>(), *b = y.const_data_ptr<scalar_t>();
        if (reduction == "none") {
            using Op = at::opmath_type<scalar_t>;
            out = at::empty_like(x);
            scalar_t* to = out.data_ptr<scalar_t>();
            at::parallel_for(0, n, BLOCK * GRAIN, [&](int64_t begin, int64_t end) {
                for (int64_t i = begin; i < end; ++i)
                    to[i] = static_cast<scalar_t>(term<Op>(a[i], b[i], static_cast<Op>(delta)));
            });
        } else {
            using Acc = at::acc_type<scalar_t, false>;  // double for float: no overflow, no drift
            at::Tensor sum = block_sums<scalar_t, Acc>(a, b, x, static_cast<Acc>(delta)).sum();
            out = (reduction == "mean" ? sum.div(n) : sum).to(x.scalar_type());
        }
    });
    return out;
}

// grad_x = g·slope/n and grad_y = -grad_x; of no elements where not needed
std::tuple<at::Tensor, at::Tensor> huber_gradient(const at::Tensor& grad_output,
                                                  const at::Tensor& input,
                                                  const at::Tensor& target, int64_t n, bool need_x,
                                                  bool need_y, double delta) {
    const at::Tensor x = input.contiguous(), y = target.contiguous();
    const at::Tensor g = grad_output.contiguous();
    const int64_t step = g.dim() == x.dim() ? 1 : 0;  // a 0-d g serves all
    at::Tensor grad_x = need_x ? at::empty_like(x) : at::empty({0}, x.options());
    at::Tensor grad_y = need_y ? at::empty_like(x) : at::empty({0}, x.options());
    AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, x.scalar_type(), "huber_gradient", [&] {
        using Op = at::opmath_type<scalar_t>;
        const scalar_t *a = x.const_data_ptr<scalar_t>(), *b = y.const_data_ptr<scalar_t>();
        const scalar_t* c = g.const_data_ptr<scalar_t>();
        scalar_t *to_x = grad_x.data_ptr<scalar_t>(), *to_y = grad_y.data_ptr<scalar_t>();
        const Op limit = static_cast<Op>(delta), divisor = static_cast<Op>(n);
        at::parallel_for(0, x.numel(), BLOCK * GRAIN, [&](int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; ++i) {
                const Op value = static_cast<Op>(c[i * step]) / divisor * slope<Op>(a[i], b[i], limit);
                if (need_x) to_x[i] = static_cast<scalar_t>(value);
                if (need_y) to_y[i] = static_cast<scalar_t>(-value);
            }
        });
    });
    return {grad_x, grad_y};
}

}  // namespace

TORCH_LIBRARY_IMPL(LIBRARY, CPU, library) {
    library.impl("huber", &huber);
    library.impl("huber_gradient", &huber_gradient);
}
