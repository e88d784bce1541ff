#include "context.h"

#include "classic.h"
#include "faults.h"
#include "space.h"

#include <stdlib.h>
#include <unistd.h>

struct context {
    CUdevice device;
    struct block *own_memory;
    int references; /* 0: destroyed */
    unsigned int flags;
    CUresult broken;
};

enum { MAX_DEPTH = 32 };

static struct context primary[MAX_GPUS];
static __thread CUcontext stack[MAX_DEPTH];
static __thread int depth;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pid_t initialised_by;

static CUresult driver_enter(void)
{
    return initialised_by == getpid() ? CUDA_SUCCESS : CUDA_ERROR_NOT_INITIALIZED;
}

CUresult device_enter(CUdevice device, struct gpu **gpu)
{
    CUresult status = driver_enter();
    if (status != CUDA_SUCCESS)
        return status;
    *gpu = gpu_at(device);
    return *gpu == NULL ? CUDA_ERROR_INVALID_DEVICE : fault_of_call(*gpu);
}

CUresult context_enter(CUcontext *context)
{
    CUresult status = driver_enter();
    if (status != CUDA_SUCCESS)
        return status;
    if (depth == 0 || stack[depth - 1] == NULL)
        return CUDA_ERROR_INVALID_CONTEXT;
    *context = stack[depth - 1];
    if ((*context)->references == 0)
        return CUDA_ERROR_CONTEXT_IS_DESTROYED;
    return (*context)->broken != CUDA_SUCCESS ? (*context)->broken : fault_of_call(context_gpu(*context));
}

struct gpu *context_gpu(const struct context *context) { return gpu_at(context->device); }

CUresult context_break(CUcontext context, CUresult error)
{
    context->broken = error;
    return error;
}

static CUresult open_context(CUcontext context, CUdevice device)
{
    struct gpu *gpu;
    CUresult status = device_enter(device, &gpu);
    if (status != CUDA_SUCCESS)
        return status;
    if (!gpu_attach(gpu))
        return CUDA_ERROR_OUT_OF_MEMORY;
    gpu_count_event(gpu, "context");
    fault_of_taking(gpu);
    struct block *memory = block_create(gpu, CONTEXT_PAGES * PAGE_BYTES);
    if (memory == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *context = (struct context){.device = device, .own_memory = memory, .references = 1};
    return CUDA_SUCCESS;
}

static void close_context(CUcontext context)
{
    classic_free_all(context);
    block_release(context->own_memory);
    context->references = 0;
}

EXPORT CUresult cuInit(unsigned int flags)
{
    if (flags != 0)
        return CUDA_ERROR_INVALID_VALUE;
    if (gpu_open_all() == 0)
        return CUDA_ERROR_NO_DEVICE;
    if (gpu_driver_mismatches())
        return CUDA_ERROR_SYSTEM_DRIVER_MISMATCH;
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    if (initialised_by == 0 && visible != NULL)
        gpu_keep_only(visible);
    if (gpu_count() == 0)
        return CUDA_ERROR_NO_DEVICE;
    if (initialised_by == 0)
        initialised_by = getpid();
    return driver_enter();
}

EXPORT CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device)
{
    struct gpu *gpu;
    CUresult status = device_enter(device, &gpu);
    if (status != CUDA_SUCCESS)
        return status;
    pthread_mutex_lock(&lock);
    *context = &primary[device];
    if ((*context)->references > 0)
        (*context)->references++;
    else
        status = open_context(*context, device);
    pthread_mutex_unlock(&lock);
    return status;
}

EXPORT CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device)
{
    if (gpu_at(device) == NULL)
        return CUDA_ERROR_INVALID_DEVICE;
    CUresult status = CUDA_SUCCESS;
    pthread_mutex_lock(&lock);
    if (primary[device].references == 0)
        status = CUDA_ERROR_INVALID_CONTEXT;
    else if (primary[device].references > 1)
        primary[device].references--;
    else
        close_context(&primary[device]);
    pthread_mutex_unlock(&lock);
    return status;
}

EXPORT CUresult cuDevicePrimaryCtxReset_v2(CUdevice device)
{
    if (gpu_at(device) == NULL)
        return CUDA_ERROR_INVALID_DEVICE;
    pthread_mutex_lock(&lock);
    if (primary[device].references > 0)
        close_context(&primary[device]);
    pthread_mutex_unlock(&lock);
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned int *flags, int *active)
{
    if (gpu_at(device) == NULL)
        return CUDA_ERROR_INVALID_DEVICE;
    *flags = primary[device].flags;
    *active = primary[device].references > 0;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuCtxPushCurrent_v2(CUcontext context)
{
    if (context == NULL)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (depth == MAX_DEPTH)
        return CUDA_ERROR_INVALID_VALUE;
    stack[depth++] = context;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuCtxPopCurrent_v2(CUcontext *context)
{
    if (depth == 0)
        return CUDA_ERROR_INVALID_CONTEXT;
    depth--;
    if (context != NULL)
        *context = stack[depth];
    return CUDA_SUCCESS;
}

EXPORT CUresult cuCtxSetCurrent(CUcontext context)
{
    if (depth > 0)
        depth--;
    if (context != NULL)
        stack[depth++] = context;
    return driver_enter();
}

EXPORT CUresult cuCtxGetCurrent(CUcontext *context)
{
    *context = depth > 0 ? stack[depth - 1] : NULL;
    return driver_enter();
}

/* A destroyed context's few bytes are kept, so that a call on it can say that it is destroyed. */
EXPORT CUresult cuCtxCreate_v2(CUcontext *context, unsigned int flags, CUdevice device)
{
    CUcontext created = calloc(1, sizeof *created);
    if (created == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    CUresult status = open_context(created, device);
    if (status == CUDA_SUCCESS)
        status = cuCtxPushCurrent_v2(created);
    if (status != CUDA_SUCCESS) {
        free(created);
        return status;
    }
    created->flags = flags;
    *context = created;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuCtxCreate_v3(CUcontext *context, void *affinity, int affinities, unsigned int flags, CUdevice device)
{
    return affinity == NULL && affinities == 0 ? cuCtxCreate_v2(context, flags, device) : CUDA_ERROR_NOT_SUPPORTED;
}

EXPORT CUresult cuCtxCreate_v4(CUcontext *context, void *parameters, unsigned int flags, CUdevice device)
{
    return parameters == NULL ? cuCtxCreate_v2(context, flags, device) : CUDA_ERROR_NOT_SUPPORTED;
}

EXPORT CUresult cuCtxDestroy_v2(CUcontext context)
{
    if (context == NULL || context == &primary[context->device])
        return CUDA_ERROR_INVALID_CONTEXT;
    if (context->references == 0)
        return CUDA_ERROR_CONTEXT_IS_DESTROYED;
    close_context(context);
    if (depth > 0 && stack[depth - 1] == context)
        depth--;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuCtxGetDevice(CUdevice *device)
{
    CUcontext context;
    CUresult status = context_enter(&context);
    if (status == CUDA_SUCCESS)
        *device = context->device;
    return status;
}

/* Everything runs at once, so there is nothing to wait for. */
EXPORT CUresult cuCtxSynchronize(void)
{
    CUcontext context;
    return context_enter(&context);
}
