/* Virtual memory management: handles of physical memory, reserved addresses, mappings, access. */
#include "context.h"
#include "faults.h"
#include "space.h"

static bool is_multiple(uint64_t bytes) { return bytes > 0 && bytes % LARGE_GRANULARITY == 0; }

static CUresult gpu_of(const CUmemAllocationProp *properties, struct gpu **gpu)
{
    if (properties == NULL || properties->type != MEM_ALLOCATION_PINNED ||
        properties->location.type != MEM_LOCATION_DEVICE)
        return CUDA_ERROR_INVALID_VALUE;
    return device_enter(properties->location.id, gpu);
}

EXPORT CUresult cuMemGetAllocationGranularity(size_t *granularity, const CUmemAllocationProp *properties, int option)
{
    struct gpu *gpu;
    CUresult status = gpu_of(properties, &gpu);
    (void)option; /* the least is also what is recommended */
    *granularity = LARGE_GRANULARITY;
    return status;
}

EXPORT CUresult cuMemCreate(CUmemGenericAllocationHandle *handle, size_t bytes, const CUmemAllocationProp *properties,
                            unsigned long long flags)
{
    struct gpu *gpu;
    CUresult status = gpu_of(properties, &gpu);
    if (status != CUDA_SUCCESS)
        return status;
    if (flags != 0 || !is_multiple(bytes))
        return CUDA_ERROR_INVALID_VALUE;
    gpu_count_event(gpu, "allocation");
    fault_of_taking(gpu);
    *handle = gpu_attach(gpu) ? block_create(gpu, bytes) : NULL;
    return *handle != NULL ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

EXPORT CUresult cuMemRelease(CUmemGenericAllocationHandle handle)
{
    if (!block_is_known(handle))
        return CUDA_ERROR_INVALID_VALUE;
    block_release(handle);
    return CUDA_SUCCESS;
}

EXPORT CUresult cuMemAddressReserve(CUdeviceptr *address, size_t bytes, size_t alignment, CUdeviceptr wish,
                                    unsigned long long flags)
{
    (void)wish; /* only a hint */
    if (flags != 0 || !is_multiple(bytes) || (alignment & (alignment - 1)) != 0)
        return CUDA_ERROR_INVALID_VALUE;
    return space_reserve(bytes, alignment > LARGE_GRANULARITY ? alignment : LARGE_GRANULARITY, address);
}

EXPORT CUresult cuMemAddressFree(CUdeviceptr address, size_t bytes) { return space_unreserve(address, bytes); }

EXPORT CUresult cuMemMap(CUdeviceptr address, size_t bytes, size_t offset, CUmemGenericAllocationHandle handle,
                         unsigned long long flags)
{
    if (flags != 0 || offset != 0 || address % LARGE_GRANULARITY != 0 || !block_is_known(handle))
        return CUDA_ERROR_INVALID_VALUE;
    CUresult status = fault_of_call(block_gpu(handle));
    return status != CUDA_SUCCESS ? status : space_map(address, bytes, handle);
}

EXPORT CUresult cuMemUnmap(CUdeviceptr address, size_t bytes) { return space_unmap(address, bytes); }

/* A mapping is seen by the GPU whose memory it is; peers have no access here. */
EXPORT CUresult cuMemSetAccess(CUdeviceptr address, size_t bytes, const CUmemAccessDesc *wishes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct gpu *gpu;
        CUdeviceptr begin;
        size_t length;
        struct block *block;
        if (wishes[i].location.type != MEM_LOCATION_DEVICE)
            return CUDA_ERROR_INVALID_VALUE;
        CUresult status = device_enter(wishes[i].location.id, &gpu);
        if (status == CUDA_SUCCESS && (!space_mapping(address, &begin, &length, &block) || block_gpu(block) != gpu))
            status = CUDA_ERROR_INVALID_VALUE;
        if (status == CUDA_SUCCESS)
            status = space_set_access(address, bytes, wishes[i].flags);
        if (status != CUDA_SUCCESS)
            return status;
    }
    return CUDA_SUCCESS;
}

EXPORT CUresult cuMemGetAccess(unsigned long long *flags, const CUmemLocation *location, CUdeviceptr address)
{
    int access;
    CUresult status = location->type == MEM_LOCATION_DEVICE ? space_access(address, &access) : CUDA_ERROR_INVALID_VALUE;
    if (status == CUDA_SUCCESS)
        *flags = access;
    return status;
}
