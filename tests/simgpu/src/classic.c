#include "classic.h"

#include "context.h"
#include "faults.h"
#include "space.h"

#include <stdlib.h>

struct allocation {
    CUdeviceptr address;
    size_t bytes;
    const struct context *owner;
    struct allocation *next;
};

static struct allocation *allocations;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void give_back(struct allocation *allocation)
{
    space_unmap(allocation->address, allocation->bytes);
    space_unreserve(allocation->address, allocation->bytes);
    free(allocation);
}

/* Free the allocations of `owner` (or anybody's) at `address` (or anywhere); whether there was one. */
static bool free_matching(const struct context *owner, CUdeviceptr address)
{
    bool found = false;
    pthread_mutex_lock(&lock);
    for (struct allocation **link = &allocations; *link != NULL;) {
        struct allocation *allocation = *link;
        if ((owner == NULL || allocation->owner == owner) && (address == 0 || allocation->address == address)) {
            *link = allocation->next;
            give_back(allocation);
            found = true;
        } else {
            link = &allocation->next;
        }
    }
    pthread_mutex_unlock(&lock);
    return found;
}

void classic_free_all(const struct context *context) { free_matching(context, 0); }

EXPORT CUresult cuMemGetInfo_v2(size_t *free_bytes, size_t *total)
{
    CUcontext context;
    CUresult status = context_enter(&context);
    if (status != CUDA_SUCCESS)
        return status;
    struct gpu *gpu = context_gpu(context);
    *total = gpu_total_bytes(gpu) - gpu_reserved_bytes();
    *free_bytes = *total - gpu_used_bytes(gpu);
    return CUDA_SUCCESS;
}

EXPORT CUresult cuMemAlloc_v2(CUdeviceptr *address, size_t bytes)
{
    CUcontext context;
    CUresult status = context_enter(&context);
    if (status != CUDA_SUCCESS)
        return status;
    struct gpu *gpu = context_gpu(context);
    if (bytes == 0)
        return CUDA_ERROR_INVALID_VALUE;
    if (bytes > gpu_total_bytes(gpu))
        return CUDA_ERROR_OUT_OF_MEMORY;
    gpu_count_event(gpu, "allocation");
    fault_of_taking(gpu);
    bytes = (bytes + SMALL_GRANULARITY - 1) / SMALL_GRANULARITY * SMALL_GRANULARITY;
    struct allocation *allocation = malloc(sizeof *allocation);
    struct block *block = allocation == NULL ? NULL : block_create(gpu, bytes);
    if (block == NULL) {
        free(allocation);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    status = space_reserve(bytes, SMALL_GRANULARITY, address);
    if (status == CUDA_SUCCESS) {
        space_map(*address, bytes, block);
        space_set_access(*address, bytes, MEM_ACCESS_READ_WRITE);
        pthread_mutex_lock(&lock);
        *allocation = (struct allocation){*address, bytes, context, allocations};
        allocations = allocation;
        pthread_mutex_unlock(&lock);
    } else {
        free(allocation);
    }
    block_release(block); /* the mapping keeps it */
    return status;
}

EXPORT CUresult cuMemFree_v2(CUdeviceptr address)
{
    CUcontext context;
    CUresult status = context_enter(&context);
    if (status != CUDA_SUCCESS || address == 0)
        return status;
    return free_matching(NULL, address) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

EXPORT CUresult cuMemGetAddressRange_v2(CUdeviceptr *base, size_t *bytes, CUdeviceptr address)
{
    CUdeviceptr begin;
    size_t length;
    struct block *block;
    if (!space_mapping(address, &begin, &length, &block))
        return CUDA_ERROR_NOT_FOUND;
    if (base != NULL)
        *base = begin;
    if (bytes != NULL)
        *bytes = length;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuMemHostAlloc(void **address, size_t bytes, unsigned int flags)
{
    (void)flags; /* all host memory is as good as pinned here */
    *address = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    return *address != NULL ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

EXPORT CUresult cuMemAllocHost_v2(void **address, size_t bytes) { return cuMemHostAlloc(address, bytes, 0); }

EXPORT CUresult cuMemFreeHost(void *address)
{
    free(address);
    return CUDA_SUCCESS;
}
