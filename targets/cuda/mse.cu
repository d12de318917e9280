// The mean squared error, fused: forward in one pass, both gradients in one pass.
//
// A plain C interface, free of torch: pointers, strides and a stream. Every kernel is a loop over
// "lanes" (block * threads + thread) in functors that also compile for the host: with
// -x c++ -DHOST_EMULATION the same indices, tails, vector paths and reduction tree run in loops.
#include <cstdint>
#include <cstring>

#ifdef HOST_EMULATION
#define HD
using Binary16 = _Float16;
using Stream = void*;
#else
#include <cuda_fp16.h>
#define HD __host__ __device__
using Binary16 = __half;
using Stream = cudaStream_t;
#endif

using Index = int64_t;
constexpr int THREADS = 256;
constexpr int MAX_DIMS = 16;
constexpr int OPERANDS = 3;            // x, y and grad_output
constexpr Index LANE_MAX = 1024;       // elements that one lane may add in series
constexpr Index BLOCKS_WANTED = 1056;  // enough to fill a large card; the same on every card

struct Bfloat16 {
    uint16_t bits;
};

template <class T> struct Accumulator { using type = float; };
template <> struct Accumulator<double> { using type = double; };

HD inline float widen(float value) { return value; }
HD inline double widen(double value) { return value; }
HD inline float widen(Binary16 value) {
#ifdef HOST_EMULATION
    return static_cast<float>(value);
#else
    return __half2float(value);
#endif
}
HD inline float widen(Bfloat16 value) {
    const uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
    float wide;
    memcpy(&wide, &bits, sizeof wide);
    return wide;
}

template <class T> HD inline T narrow(double value) { return static_cast<T>(value); }
template <class T> HD inline T narrow(float value) { return static_cast<T>(value); }
template <> HD inline Binary16 narrow<Binary16>(float value) {
#ifdef HOST_EMULATION
    return static_cast<Binary16>(value);
#else
    return __float2half_rn(value);
#endif
}
template <> HD inline Bfloat16 narrow<Bfloat16>(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if (value != value) return {static_cast<uint16_t>((bits >> 16) | 0x40)};
    return {static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};  // to nearest even
}

// sizes and strides in elements, outermost dimension first
struct Layout {
    Index elements;
    int dims;
    Index size[MAX_DIMS];
    Index stride[OPERANDS][MAX_DIMS];

    // whether operand lies in memory one element after the other
    bool dense(int operand) const {
        return dims == 0 || (dims == 1 && stride[operand][0] == 1);
    }
    bool constant(int operand) const {
        for (int k = 0; k < dims; ++k)
            if (stride[operand][k] != 0) return false;
        return true;
    }
    HD void offsets(Index i, Index (&offset)[OPERANDS]) const {
        for (int k = 0; k < OPERANDS; ++k) offset[k] = 0;
        for (int k = dims - 1; k >= 0; --k) {
            const Index digit = i % size[k];
            i /= size[k];
            for (int operand = 0; operand < OPERANDS; ++operand)
                offset[operand] += digit * stride[operand][k];
        }
    }
};

// 16 bytes: what one load instruction of a lane fetches
template <class T> struct alignas(16) Pack {
    static constexpr int N = 16 / sizeof(T);
    T item[N];
};

inline bool aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

template <class T> HD inline Pack<T> load(const T* from, Index pack) {
    return reinterpret_cast<const Pack<T>*>(from)[pack];
}
template <class T> HD inline void store(T* to, Index pack, const Pack<T>& value) {
    reinterpret_cast<Pack<T>*>(to)[pack] = value;
}

template <class T> HD inline typename Accumulator<T>::type squared(T x, T y) {
    const auto d = widen(x) - widen(y);
    return d * d;
}

// out = (x - y)², elementwise; out is contiguous
template <class T> struct Square {
    const T *x, *y;
    T* out;
    Layout at;
    bool packed;

    HD void operator()(Index lane, Index lanes) const {
        const Index packs = packed ? at.elements / Pack<T>::N : 0;
        for (Index i = lane; i < packs; i += lanes) {
            const Pack<T> a = load(x, i), b = load(y, i);
            Pack<T> s;
            for (int k = 0; k < Pack<T>::N; ++k) s.item[k] = narrow<T>(squared(a.item[k], b.item[k]));
            store(out, i, s);
        }
        for (Index i = packs * Pack<T>::N + lane; i < at.elements; i += lanes) {
            Index offset[OPERANDS];
            at.offsets(i, offset);
            out[i] = narrow<T>(squared(x[offset[0]], y[offset[1]]));
        }
    }
};

// Σ (x - y)² of the elements of one lane
template <class T> struct SquareSum {
    using Acc = typename Accumulator<T>::type;
    const T *x, *y;
    Layout at;
    bool packed;

    HD Acc operator()(Index lane, Index lanes) const {
        Acc sum = 0;
        const Index packs = packed ? at.elements / Pack<T>::N : 0;
        for (Index i = lane; i < packs; i += lanes) {
            const Pack<T> a = load(x, i), b = load(y, i);
            for (int k = 0; k < Pack<T>::N; ++k) sum += squared(a.item[k], b.item[k]);
        }
        for (Index i = packs * Pack<T>::N + lane; i < at.elements; i += lanes) {
            Index offset[OPERANDS];
            at.offsets(i, offset);
            sum += squared(x[offset[0]], y[offset[1]]);
        }
        return sum;
    }
};

// Σ of the partial sums of one lane
template <class Acc> struct PartialSum {
    const Acc* partial;
    Index elements;

    HD Acc operator()(Index lane, Index lanes) const {
        Acc sum = 0;
        for (Index i = lane; i < elements; i += lanes) sum += partial[i];
        return sum;
    }
};

// what becomes of the sum of a block
template <class Acc> struct Keep {
    Acc* partial;
    HD void operator()(Index block, Acc sum) const { partial[block] = sum; }
};
template <class T, class Acc> struct Finish {
    T* out;
    double divisor;
    HD void operator()(Index, Acc sum) const {
        out[0] = narrow<T>(static_cast<Acc>(static_cast<double>(sum) / divisor));
    }
};

// grad_x = scale·g·(x - y) and grad_y = -grad_x; either pointer may be null; both are contiguous
template <class T> struct Gradient {
    using Acc = typename Accumulator<T>::type;
    const T *x, *y, *g;
    T *grad_x, *grad_y;
    Acc scale;
    Layout at;
    bool packed, scalar;  // scalar: one element of g serves all

    // scale·g first: 2·d would overflow where the gradient itself does not
    HD Acc element(T a, T b, T c) const { return (scale * widen(c)) * (widen(a) - widen(b)); }

    HD void operator()(Index lane, Index lanes) const {
        const Index packs = packed ? at.elements / Pack<T>::N : 0;
        for (Index i = lane; i < packs; i += lanes) {
            const Pack<T> a = load(x, i), b = load(y, i);
            Pack<T> c, positive, negative;
            if (scalar)
                for (int k = 0; k < Pack<T>::N; ++k) c.item[k] = g[0];
            else
                c = load(g, i);
            for (int k = 0; k < Pack<T>::N; ++k) {
                const Acc value = element(a.item[k], b.item[k], c.item[k]);
                positive.item[k] = narrow<T>(value);
                negative.item[k] = narrow<T>(-value);
            }
            if (grad_x) store(grad_x, i, positive);
            if (grad_y) store(grad_y, i, negative);
        }
        for (Index i = packs * Pack<T>::N + lane; i < at.elements; i += lanes) {
            Index offset[OPERANDS];
            at.offsets(i, offset);
            const Acc value = element(x[offset[0]], y[offset[1]], g[offset[2]]);
            if (grad_x) grad_x[i] = narrow<T>(value);
            if (grad_y) grad_y[i] = narrow<T>(-value);
        }
    }
};

template <class Acc> HD inline void fold(Acc* shared, int thread, int stride) {
    if (thread < stride) shared[thread] += shared[thread + stride];
}

#ifdef HOST_EMULATION
template <class F> int launch(const F& body, Index blocks, Stream) {
    for (Index lane = 0; lane < blocks * THREADS; ++lane) body(lane, blocks * THREADS);
    return 0;
}
template <class Acc, class F, class End>
int reduce(const F& body, const End& end, Index blocks, Stream) {
    for (Index block = 0; block < blocks; ++block) {
        Acc shared[THREADS];
        for (int t = 0; t < THREADS; ++t) shared[t] = body(block * THREADS + t, blocks * THREADS);
        for (int stride = THREADS / 2; stride > 0; stride /= 2)
            for (int t = 0; t < THREADS; ++t) fold(shared, t, stride);
        end(block, shared[0]);
    }
    return 0;
}
struct DeviceGuard {
    int error = 0;
    explicit DeviceGuard(int) {}
};
extern "C" const char* mse_error(int) { return "none on the host"; }
#else
template <class F> __global__ void __launch_bounds__(THREADS) launched(F body) {
    body(static_cast<Index>(blockIdx.x) * THREADS + threadIdx.x,
         static_cast<Index>(gridDim.x) * THREADS);
}
template <class Acc, class F, class End>
__global__ void __launch_bounds__(THREADS) reduced(F body, End end) {
    __shared__ Acc shared[THREADS];
    const int t = static_cast<int>(threadIdx.x);
    shared[t] = body(static_cast<Index>(blockIdx.x) * THREADS + t,
                     static_cast<Index>(gridDim.x) * THREADS);
    __syncthreads();
    for (int stride = THREADS / 2; stride > 0; stride /= 2) {
        fold(shared, t, stride);
        __syncthreads();
    }
    if (t == 0) end(blockIdx.x, shared[0]);
}
template <class F> int launch(const F& body, Index blocks, Stream stream) {
    launched<<<static_cast<unsigned>(blocks), THREADS, 0, stream>>>(body);
    return cudaGetLastError();
}
template <class Acc, class F, class End>
int reduce(const F& body, const End& end, Index blocks, Stream stream) {
    reduced<Acc><<<static_cast<unsigned>(blocks), THREADS, 0, stream>>>(body, end);
    return cudaGetLastError();
}
struct DeviceGuard {
    int before = 0;
    int error;
    explicit DeviceGuard(int device) {
        error = cudaGetDevice(&before);
        if (!error) error = cudaSetDevice(device);
    }
    ~DeviceGuard() { cudaSetDevice(before); }
};
extern "C" const char* mse_error(int error) {
    return cudaGetErrorString(static_cast<cudaError_t>(error));
}
#endif

static Index ceil_divide(Index a, Index b) { return (a + b - 1) / b; }
static Index smaller(Index a, Index b) { return a < b ? a : b; }
static Index larger(Index a, Index b) { return a < b ? b : a; }

static Index blocks_of(Index elements) {
    const Index wanted = smaller(ceil_divide(elements, THREADS * 16), BLOCKS_WANTED);
    return larger(1, larger(ceil_divide(elements, THREADS * LANE_MAX), wanted));
}

template <class T>
int forward(int reduction, T* out, void* partials, const T* x, const T* y, const Layout& at,
            Stream stream) {
    using Acc = typename Accumulator<T>::type;
    const bool packed = at.dense(0) && at.dense(1) && aligned(x) && aligned(y);
    const Index blocks = blocks_of(at.elements);
    if (reduction == 0)
        return launch(Square<T>{x, y, out, at, packed && aligned(out)}, blocks, stream);
    Acc* partial = static_cast<Acc*>(partials);
    const int error =
        reduce<Acc>(SquareSum<T>{x, y, at, packed}, Keep<Acc>{partial}, blocks, stream);
    if (error) return error;
    const double divisor = reduction == 2 ? static_cast<double>(at.elements) : 1.0;
    return reduce<Acc>(PartialSum<Acc>{partial, blocks}, Finish<T, Acc>{out, divisor}, 1, stream);
}

template <class T>
int backward(double scale, T* grad_x, T* grad_y, const T* x, const T* y, const T* g,
             const Layout& at, Stream stream) {
    const bool scalar = at.constant(2);
    const bool packed = at.dense(0) && at.dense(1) && (scalar || (at.dense(2) && aligned(g))) &&
                        aligned(x) && aligned(y) && aligned(grad_x) && aligned(grad_y);
    using Acc = typename Accumulator<T>::type;
    return launch(Gradient<T>{x, y, g, grad_x, grad_y, static_cast<Acc>(scale), at, packed, scalar},
                  blocks_of(at.elements), stream);
}

template <class T> static T* as(void* pointer) { return static_cast<T*>(pointer); }
template <class T> static const T* as(const void* pointer) { return static_cast<const T*>(pointer); }

#define BY_DTYPE(CALL)                                   \
    switch (dtype) {                                     \
        case 0: { using T = double; return CALL; }       \
        case 1: { using T = float; return CALL; }        \
        case 2: { using T = Binary16; return CALL; }     \
        default: { using T = Bfloat16; return CALL; }    \
    }

// Number of partial sums (of 8 bytes at most) that mse_forward needs room for.
extern "C" int64_t mse_partials(int64_t elements) { return blocks_of(elements); }

// reduction: 0 none, 1 sum, 2 mean. Returns 0 or a CUDA error.
extern "C" int mse_forward(int device, int dtype, int reduction, void* out, void* partials,
                           const void* x, const void* y, const Layout* at, void* stream) {
    const DeviceGuard guard(device);
    if (guard.error) return guard.error;
    BY_DTYPE(forward<T>(reduction, as<T>(out), partials, as<T>(x), as<T>(y), *at,
                        static_cast<Stream>(stream)))
}

// grad_x or grad_y may be null. Returns 0 or a CUDA error.
extern "C" int mse_backward(int device, int dtype, double scale, void* grad_x, void* grad_y,
                            const void* x, const void* y, const void* g, const Layout* at,
                            void* stream) {
    const DeviceGuard guard(device);
    if (guard.error) return guard.error;
    BY_DTYPE(backward<T>(scale, as<T>(grad_x), as<T>(grad_y), as<T>(x), as<T>(y), as<T>(g), *at,
                         static_cast<Stream>(stream)))
}
