/* The scrub kernels: the only implementation there is.
 *
 * NVRTC compiles this file to scrub.ptx for real GPUs. The simulated driver of the tests compiles the same file with
 * the C compiler, so it keeps to the language both share: no references, no templates, no block barriers. A host build
 * defines KERNEL, the built-in variables, with a warp of one thread, and the access to shared memory itself.
 *
 * Rules
 *  1. Memory is read and written in 16-byte words; `n` counts words, `base` is 16-byte aligned.
 *  2. Every kernel strides over its whole range, so any grid covers it; blockDim.x is a multiple of the warp size.
 *  3. Counters are 64-bit, cleared by the host, and touched once a warp at most, and not at all when nothing is found.
 *  4. No kernel writes contents of the probed memory anywhere: counts and a digest are all that leaves.
 */

typedef unsigned long long u64;

#ifndef KERNEL
#define KERNEL extern "C" __global__ void

extern __shared__ u64 block_shared[];

/* Volatile: what is read back must come from the memory, not from a register that the compiler kept. */
static __device__ __forceinline__ u64 load_shared(u64 word) { return ((volatile u64 *)block_shared)[word]; }

static __device__ __forceinline__ void store_shared(u64 word, u64 value)
{
    ((volatile u64 *)block_shared)[word] = value;
}

/* The number of the multiprocessor that this block runs on. */
static __device__ __forceinline__ unsigned int multiprocessor(void)
{
    unsigned int number;
    asm volatile("mov.u32 %0, %%smid;" : "=r"(number));
    return number;
}
#endif

#define WORDS_PER_PAGE 4096ull /* a page is 64 KiB */
#define GOLDEN 0x9e3779b97f4a7c15ull
#define WHOLE_WARP 0xffffffffu

static __device__ __forceinline__ u64 thread_index(void) { return (u64)blockIdx.x * blockDim.x + threadIdx.x; }

static __device__ __forceinline__ u64 thread_count(void) { return (u64)gridDim.x * blockDim.x; }

static __device__ __forceinline__ bool is_first_lane(void) { return threadIdx.x % warpSize == 0; }

/* The sums of a warp; the result is valid in its first lane. */
static __device__ __forceinline__ u64 warp_sum(u64 value)
{
    for (int step = warpSize / 2; step > 0; step /= 2)
        value += __shfl_down_sync(WHOLE_WARP, value, step);
    return value;
}

static __device__ __forceinline__ u64 warp_xor(u64 value)
{
    for (int step = warpSize / 2; step > 0; step /= 2)
        value ^= __shfl_down_sync(WHOLE_WARP, value, step);
    return value;
}

static __device__ __forceinline__ u64 warp_minimum(u64 value)
{
    for (int step = warpSize / 2; step > 0; step /= 2) {
        u64 other = __shfl_down_sync(WHOLE_WARP, value, step);
        value = other < value ? other : value;
    }
    return value;
}

/* The finalizer of splitmix64: a bijection, so different inputs never collide. */
static __device__ __forceinline__ u64 mix(u64 x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

/* What word `index` of the GPU holds after a fill. The second half is the complement of the first, halves swapped:
 * every word has as many ones as zeros and none repeats, so a stuck cell, a skipped write and two addresses that
 * share one cell all show. */
static __device__ __forceinline__ uint4 pattern(u64 index, u64 key)
{
    u64 m = mix(key + (index + 1) * GOLDEN);
    unsigned int low = (unsigned int)m, high = (unsigned int)(m >> 32);
    return make_uint4(low, high, ~high, ~low);
}

static __device__ __forceinline__ bool is_zero(uint4 word) { return (word.x | word.y | word.z | word.w) == 0; }

static __device__ __forceinline__ bool is_equal(uint4 a, uint4 b)
{
    return a.x == b.x && a.y == b.y && a.z == b.z && a.w == b.w;
}

/* One word's share of the digest: the same contents elsewhere give another share. */
static __device__ __forceinline__ u64 fold(uint4 word, u64 index)
{
    u64 low = word.x | (u64)word.y << 32, high = word.z | (u64)word.w << 32;
    return mix(low ^ mix(high + (index + 1) * GOLDEN));
}

static __device__ __forceinline__ void report_mismatches(u64 count, u64 lowest, u64 *out)
{
    count = warp_sum(count);
    lowest = warp_minimum(lowest);
    if (is_first_lane() && count != 0) {
        atomicAdd(&out[0], count);
        atomicMin(&out[1], lowest);
    }
}

/* Look at memory before anything is written to it.
 * out[0] += words that are not zero; out[1] += pages that hold one; out[2] ^= digest of those words and their places.
 * A warp takes a page at a time, so that a page is counted once and without a barrier. */
KERNEL lethe_probe(const uint4 *base, u64 n, u64 *out)
{
    const u64 warps = thread_count() / warpSize, lane = threadIdx.x % warpSize;
    u64 residue = 0, dirty_pages = 0, digest = 0;

    for (u64 page = thread_index() / warpSize; page * WORDS_PER_PAGE < n; page += warps) {
        const u64 begin = page * WORDS_PER_PAGE, end = n - begin < WORDS_PER_PAGE ? n : begin + WORDS_PER_PAGE;
        u64 here = 0;
        for (u64 i = begin + lane; i < end; i += warpSize) {
            const uint4 word = base[i];
            if (!is_zero(word)) {
                here += 1;
                digest ^= fold(word, i);
            }
        }
        residue += here;
        if (warp_sum(here) != 0 && lane == 0)
            dirty_pages += 1;
    }
    residue = warp_sum(residue);
    digest = warp_xor(digest);
    if (lane == 0 && residue != 0) {
        atomicAdd(&out[0], residue);
        atomicAdd(&out[1], dirty_pages);
        atomicXor(&out[2], digest);
    }
}

/* Write the pattern of `key`; base[0] is word `first` of the GPU. */
KERNEL lethe_fill(uint4 *base, u64 n, u64 first, u64 key)
{
    const u64 stride = thread_count();
    for (u64 i = thread_index(); i < n; i += stride)
        base[i] = pattern(first + i, key);
}

/* out[0] += words that do not hold the pattern; out[1] = least index of one, if below what it was (host: all ones). */
KERNEL lethe_verify(const uint4 *base, u64 n, u64 first, u64 key, u64 *out)
{
    const u64 stride = thread_count();
    u64 count = 0, lowest = ~0ull;
    for (u64 i = thread_index(); i < n; i += stride)
        if (!is_equal(base[i], pattern(first + i, key))) {
            count += 1;
            lowest = first + i < lowest ? first + i : lowest;
        }
    report_mismatches(count, lowest, out);
}

KERNEL lethe_zero(uint4 *base, u64 n)
{
    const u64 stride = thread_count();
    for (u64 i = thread_index(); i < n; i += stride)
        base[i] = make_uint4(0, 0, 0, 0);
}

/* As lethe_verify, for zeros. */
KERNEL lethe_verify_zero(const uint4 *base, u64 n, u64 first, u64 *out)
{
    const u64 stride = thread_count();
    u64 count = 0, lowest = ~0ull;
    for (u64 i = thread_index(); i < n; i += stride)
        if (!is_zero(base[i])) {
            count += 1;
            lowest = first + i < lowest ? first + i : lowest;
        }
    report_mismatches(count, lowest, out);
}

/* The multiprocessor's shared memory, as much as one block can take: look, write the pattern of `key`, verify, zero,
 * verify. `words` counts words of 8 bytes. A block that takes it all has its multiprocessor to itself, and a thread
 * keeps to its own words, so nothing needs a barrier.
 * out[0] += words that were not zero; out[1] += words that did not hold what was written; bit n of the `bits` bits from
 * out[2] on is set: multiprocessor n was done. */
KERNEL lethe_shared(u64 words, u64 key, u64 bits, u64 *out)
{
    const unsigned int here = multiprocessor();
    const u64 first = here * words;
    u64 residue = 0, wrong = 0;
    for (u64 i = threadIdx.x; i < words; i += blockDim.x)
        residue += load_shared(i) != 0;
    for (u64 i = threadIdx.x; i < words; i += blockDim.x)
        store_shared(i, mix(key + (first + i + 1) * GOLDEN));
    for (u64 i = threadIdx.x; i < words; i += blockDim.x)
        wrong += load_shared(i) != mix(key + (first + i + 1) * GOLDEN);
    for (u64 i = threadIdx.x; i < words; i += blockDim.x)
        store_shared(i, 0);
    for (u64 i = threadIdx.x; i < words; i += blockDim.x)
        wrong += load_shared(i) != 0;
    residue = warp_sum(residue);
    wrong = warp_sum(wrong);
    if (is_first_lane() && residue != 0)
        atomicAdd(&out[0], residue);
    if (is_first_lane() && wrong != 0)
        atomicAdd(&out[1], wrong);
    if (threadIdx.x == 0 && here < bits)
        atomicOr(&out[2 + here / 64], 1ull << here % 64);
}
