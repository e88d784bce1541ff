#include "kernels.h"

#include "cuda_shim.h"
#include "space.h"

#include <string.h>

#include "scrub.cu"

/* Run `call` once for each thread of the launch, one after the other, blocks in order. */
#define FOR_EACH_THREAD(size, call)                                                                                    \
    do {                                                                                                               \
        gridDim = (struct grid_size){(size)->grid_x, (size)->grid_y, (size)->grid_z};                                  \
        blockDim = (struct grid_size){(size)->block_x, (size)->block_y, (size)->block_z};                              \
        for (blockIdx.z = 0; blockIdx.z < gridDim.z; blockIdx.z++)                                                     \
            for (blockIdx.y = 0; blockIdx.y < gridDim.y; blockIdx.y++)                                                 \
                for (blockIdx.x = 0; blockIdx.x < gridDim.x; blockIdx.x++)                                             \
                    for (threadIdx.z = 0; threadIdx.z < blockDim.z; threadIdx.z++)                                     \
                        for (threadIdx.y = 0; threadIdx.y < blockDim.y; threadIdx.y++)                                 \
                            for (threadIdx.x = 0; threadIdx.x < blockDim.x; threadIdx.x++)                             \
                                call;                                                                                  \
    } while (0)

/* A kernel's parameter `i`, which is passed by address. */
#define ARGUMENT(type, i) (*(type *)arguments[i])

static bool is_range(const uint4 *base, u64 words, bool write)
{
    return (CUdeviceptr)base % sizeof *base == 0 && words <= SIZE_MAX / sizeof *base &&
           space_allows((CUdeviceptr)base, words * sizeof *base, write);
}

static bool is_output(const u64 *out, size_t counters)
{
    return space_allows((CUdeviceptr)out, counters * sizeof *out, true);
}

static struct written written_words(const uint4 *base, u64 words)
{
    return (struct written){(CUdeviceptr)base, words * sizeof *base};
}

static CUresult run_probe(const struct gpu *gpu, void **arguments, const struct launch_size *size,
                          struct written *written)
{
    const uint4 *base = ARGUMENT(const uint4 *, 0);
    u64 n = ARGUMENT(u64, 1), *out = ARGUMENT(u64 *, 2);
    (void)gpu, (void)written;
    if (!is_range(base, n, false) || !is_output(out, 3))
        return CUDA_ERROR_ILLEGAL_ADDRESS;
    FOR_EACH_THREAD(size, lethe_probe(base, n, out));
    return CUDA_SUCCESS;
}

static CUresult run_fill(const struct gpu *gpu, void **arguments, const struct launch_size *size,
                         struct written *written)
{
    uint4 *base = ARGUMENT(uint4 *, 0);
    u64 n = ARGUMENT(u64, 1), first = ARGUMENT(u64, 2), key = ARGUMENT(u64, 3);
    (void)gpu;
    if (!is_range(base, n, true))
        return CUDA_ERROR_ILLEGAL_ADDRESS;
    FOR_EACH_THREAD(size, lethe_fill(base, n, first, key));
    *written = written_words(base, n);
    return CUDA_SUCCESS;
}

static CUresult run_verify(const struct gpu *gpu, void **arguments, const struct launch_size *size,
                           struct written *written)
{
    const uint4 *base = ARGUMENT(const uint4 *, 0);
    u64 n = ARGUMENT(u64, 1), first = ARGUMENT(u64, 2), key = ARGUMENT(u64, 3), *out = ARGUMENT(u64 *, 4);
    (void)gpu, (void)written;
    if (!is_range(base, n, false) || !is_output(out, 2))
        return CUDA_ERROR_ILLEGAL_ADDRESS;
    FOR_EACH_THREAD(size, lethe_verify(base, n, first, key, out));
    return CUDA_SUCCESS;
}

static CUresult run_zero(const struct gpu *gpu, void **arguments, const struct launch_size *size,
                         struct written *written)
{
    uint4 *base = ARGUMENT(uint4 *, 0);
    u64 n = ARGUMENT(u64, 1);
    (void)gpu;
    if (!is_range(base, n, true))
        return CUDA_ERROR_ILLEGAL_ADDRESS;
    FOR_EACH_THREAD(size, lethe_zero(base, n));
    *written = written_words(base, n);
    return CUDA_SUCCESS;
}

static CUresult run_verify_zero(const struct gpu *gpu, void **arguments, const struct launch_size *size,
                                struct written *written)
{
    const uint4 *base = ARGUMENT(const uint4 *, 0);
    u64 n = ARGUMENT(u64, 1), first = ARGUMENT(u64, 2), *out = ARGUMENT(u64 *, 3);
    (void)gpu, (void)written;
    if (!is_range(base, n, false) || !is_output(out, 2))
        return CUDA_ERROR_ILLEGAL_ADDRESS;
    FOR_EACH_THREAD(size, lethe_verify_zero(base, n, first, out));
    return CUDA_SUCCESS;
}

/* Let the current block run on a multiprocessor, and see its shared memory. */
static void place_block(const struct gpu *gpu, const struct shared_fault *fault)
{
    unsigned int chosen = blockIdx.x % MULTIPROCESSORS;
    if (chosen == fault->missed)
        chosen = (chosen + 1) % MULTIPROCESSORS;
    current_multiprocessor = chosen;
    block_shared = gpu->shared + (size_t)chosen * SHARED_BYTES;
    stuck_byte = fault->stuck_offset / SHARED_BYTES == chosen ? fault->stuck_offset % SHARED_BYTES : NO_BYTE;
    stuck_value = fault->stuck_value;
}

static CUresult run_shared(const struct gpu *gpu, void **arguments, const struct launch_size *size,
                           struct written *written)
{
    u64 words = ARGUMENT(u64, 0), key = ARGUMENT(u64, 1), bits = ARGUMENT(u64, 2), *out = ARGUMENT(u64 *, 3);
    (void)written;
    if (words > size->shared_bytes / sizeof words || !is_output(out, 2 + (bits + 63) / 64))
        return CUDA_ERROR_ILLEGAL_ADDRESS;
    const struct shared_fault fault = fault_of_shared_memory(gpu);
    FOR_EACH_THREAD(size, (place_block(gpu, &fault), lethe_shared(words, key, bits, out)));
    return CUDA_SUCCESS;
}

static const struct kernel kernels[] = {
    {"lethe_probe", WRITES_NOTHING, run_probe},   {"lethe_fill", WRITES_PATTERN, run_fill},
    {"lethe_verify", WRITES_NOTHING, run_verify}, {"lethe_zero", WRITES_ZEROS, run_zero},
    {"lethe_verify_zero", WRITES_NOTHING, run_verify_zero}, {"lethe_shared", WRITES_NOTHING, run_shared},
};

const struct kernel *kernel_named(const char *name)
{
    for (size_t i = 0; i < sizeof kernels / sizeof kernels[0]; i++)
        if (strcmp(kernels[i].name, name) == 0)
            return &kernels[i];
    return NULL;
}
