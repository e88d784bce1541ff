/* Copies and memsets. The asynchronous ones are done when they return. */
#include "context.h"
#include "faults.h"
#include "space.h"

#include <string.h>

static CUresult write_enter(CUcontext *context, CUdeviceptr destination, size_t bytes)
{
    CUresult status = context_enter(context);
    if (status != CUDA_SUCCESS)
        return status;
    return space_allows(destination, bytes, true) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

EXPORT CUresult cuMemcpyHtoD_v2(CUdeviceptr destination, const void *source, size_t bytes)
{
    CUcontext context;
    CUresult status = write_enter(&context, destination, bytes);
    if (status != CUDA_SUCCESS)
        return status;
    memcpy((void *)destination, source, bytes);
    fault_after_write(context_gpu(context), WRITES_OTHER, destination, bytes);
    return CUDA_SUCCESS;
}

EXPORT CUresult cuMemcpyDtoH_v2(void *destination, CUdeviceptr source, size_t bytes)
{
    CUcontext context;
    CUresult status = context_enter(&context);
    if (status != CUDA_SUCCESS)
        return status;
    if (!space_allows(source, bytes, false))
        return CUDA_ERROR_INVALID_VALUE;
    memcpy(destination, (const void *)source, bytes);
    return CUDA_SUCCESS;
}

EXPORT CUresult cuMemcpyDtoD_v2(CUdeviceptr destination, CUdeviceptr source, size_t bytes)
{
    CUcontext context;
    CUresult status = write_enter(&context, destination, bytes);
    if (status != CUDA_SUCCESS)
        return status;
    if (!space_allows(source, bytes, false))
        return CUDA_ERROR_INVALID_VALUE;
    memmove((void *)destination, (const void *)source, bytes);
    fault_after_write(context_gpu(context), WRITES_OTHER, destination, bytes);
    return CUDA_SUCCESS;
}

/* Either side may be host or device memory: the address tells. */
EXPORT CUresult cuMemcpy(CUdeviceptr destination, CUdeviceptr source, size_t bytes)
{
    if (!space_is_device(destination))
        return cuMemcpyDtoH_v2((void *)destination, source, bytes);
    if (!space_is_device(source))
        return cuMemcpyHtoD_v2(destination, (const void *)source, bytes);
    return cuMemcpyDtoD_v2(destination, source, bytes);
}

EXPORT CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr destination, const void *source, size_t bytes, CUstream stream)
{
    (void)stream;
    return cuMemcpyHtoD_v2(destination, source, bytes);
}

EXPORT CUresult cuMemcpyDtoHAsync_v2(void *destination, CUdeviceptr source, size_t bytes, CUstream stream)
{
    (void)stream;
    return cuMemcpyDtoH_v2(destination, source, bytes);
}

EXPORT CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr destination, CUdeviceptr source, size_t bytes, CUstream stream)
{
    (void)stream;
    return cuMemcpyDtoD_v2(destination, source, bytes);
}

EXPORT CUresult cuMemcpyAsync(CUdeviceptr destination, CUdeviceptr source, size_t bytes, CUstream stream)
{
    (void)stream;
    return cuMemcpy(destination, source, bytes);
}

/* Repeat a value of `width` bytes. */
static CUresult set_memory(CUdeviceptr destination, uint32_t value, size_t width, size_t count)
{
    CUcontext context;
    if (count > SIZE_MAX / width || destination % width != 0)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult status = write_enter(&context, destination, count * width);
    if (status != CUDA_SUCCESS)
        return status;
    if (width == 1)
        memset((void *)destination, (int)value, count);
    else if (width == 2)
        for (size_t i = 0; i < count; i++)
            ((uint16_t *)destination)[i] = (uint16_t)value;
    else
        for (size_t i = 0; i < count; i++)
            ((uint32_t *)destination)[i] = value;
    fault_after_write(context_gpu(context), value == 0 ? WRITES_ZEROS : WRITES_OTHER, destination, count * width);
    return CUDA_SUCCESS;
}

EXPORT CUresult cuMemsetD8_v2(CUdeviceptr destination, unsigned char value, size_t count)
{
    return set_memory(destination, value, 1, count);
}

EXPORT CUresult cuMemsetD16_v2(CUdeviceptr destination, unsigned short value, size_t count)
{
    return set_memory(destination, value, 2, count);
}

EXPORT CUresult cuMemsetD32_v2(CUdeviceptr destination, unsigned int value, size_t count)
{
    return set_memory(destination, value, 4, count);
}

EXPORT CUresult cuMemsetD8Async(CUdeviceptr destination, unsigned char value, size_t count, CUstream stream)
{
    (void)stream;
    return set_memory(destination, value, 1, count);
}

EXPORT CUresult cuMemsetD16Async(CUdeviceptr destination, unsigned short value, size_t count, CUstream stream)
{
    (void)stream;
    return set_memory(destination, value, 2, count);
}

EXPORT CUresult cuMemsetD32Async(CUdeviceptr destination, unsigned int value, size_t count, CUstream stream)
{
    (void)stream;
    return set_memory(destination, value, 4, count);
}
