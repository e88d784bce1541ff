/* What scrub.cu needs from CUDA, for the C compiler.
 *
 * A thread of the grid is one call of the kernel, with these variables set. A warp has one thread: a shuffle inside it
 * is the value itself and is never reached by a loop over a warp's halves, so kernels that reduce by warps need no
 * second version.
 *
 * Shared memory is that of the multiprocessor which the launch has placed the block on, with a byte of it stuck if a
 * fault says so; it is read and written by calls, so that the fault can come between. */
#ifndef SIMGPU_CUDA_SHIM_H
#define SIMGPU_CUDA_SHIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define KERNEL static void
#define __device__
#define __forceinline__ inline

struct grid_size { unsigned int x, y, z; };
typedef struct { unsigned int x, y, z, w; } uint4;

static __thread struct grid_size gridDim, blockDim, blockIdx, threadIdx;
enum { warpSize = 1 };

static inline uint4 make_uint4(unsigned int x, unsigned int y, unsigned int z, unsigned int w)
{
    return (uint4){x, y, z, w};
}

static inline unsigned long long __shfl_down_sync(unsigned int lanes, unsigned long long value, int step)
{
    (void)lanes, (void)step;
    return value;
}

#define NO_BYTE SIZE_MAX

static __thread unsigned int current_multiprocessor;
static __thread uint8_t *block_shared;
static __thread size_t stuck_byte;
static __thread uint8_t stuck_value;

static inline unsigned int multiprocessor(void) { return current_multiprocessor; }

static inline unsigned long long load_shared(unsigned long long word)
{
    unsigned long long value;
    memcpy(&value, block_shared + word * sizeof value, sizeof value);
    return value;
}

static inline void store_shared(unsigned long long word, unsigned long long value)
{
    memcpy(block_shared + word * sizeof value, &value, sizeof value);
    if (stuck_byte / sizeof value == word)
        block_shared[stuck_byte] = stuck_value;
}

static inline void atomicOr(unsigned long long *at, unsigned long long value)
{
    __atomic_fetch_or(at, value, __ATOMIC_RELAXED);
}

static inline void atomicAdd(unsigned long long *at, unsigned long long value)
{
    __atomic_fetch_add(at, value, __ATOMIC_RELAXED);
}

static inline void atomicXor(unsigned long long *at, unsigned long long value)
{
    __atomic_fetch_xor(at, value, __ATOMIC_RELAXED);
}

static inline void atomicMin(unsigned long long *at, unsigned long long value)
{
    unsigned long long seen = __atomic_load_n(at, __ATOMIC_RELAXED);
    while (value < seen && !__atomic_compare_exchange_n(at, &seen, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        ;
}

#endif
