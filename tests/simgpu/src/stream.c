/* Streams and events. All work is done when its call returns, so streams only exist and events only tell the time. */
#include "context.h"

#include <stdlib.h>
#include <time.h>

struct stream { int priority; };

struct event {
    bool recorded;
    struct timespec at;
};

EXPORT CUresult cuStreamCreateWithPriority(CUstream *stream, unsigned int flags, int priority)
{
    CUcontext context;
    CUresult status = context_enter(&context);
    (void)flags;
    if (status != CUDA_SUCCESS)
        return status;
    *stream = malloc(sizeof **stream);
    if (*stream == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    (*stream)->priority = priority;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuStreamCreate(CUstream *stream, unsigned int flags)
{
    return cuStreamCreateWithPriority(stream, flags, 0);
}

EXPORT CUresult cuStreamDestroy_v2(CUstream stream)
{
    free(stream);
    return CUDA_SUCCESS;
}

EXPORT CUresult cuStreamSynchronize(CUstream stream)
{
    CUcontext context;
    (void)stream;
    return context_enter(&context);
}

EXPORT CUresult cuStreamQuery(CUstream stream) { return cuStreamSynchronize(stream); }

EXPORT CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned int flags)
{
    (void)event, (void)flags;
    return cuStreamSynchronize(stream);
}

EXPORT CUresult cuEventCreate(CUevent *event, unsigned int flags)
{
    CUcontext context;
    CUresult status = context_enter(&context);
    (void)flags;
    if (status != CUDA_SUCCESS)
        return status;
    *event = calloc(1, sizeof **event);
    return *event != NULL ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

EXPORT CUresult cuEventDestroy_v2(CUevent event)
{
    free(event);
    return CUDA_SUCCESS;
}

EXPORT CUresult cuEventRecord(CUevent event, CUstream stream)
{
    CUresult status = cuStreamSynchronize(stream);
    if (status != CUDA_SUCCESS)
        return status;
    event->recorded = true;
    clock_gettime(CLOCK_MONOTONIC, &event->at);
    return CUDA_SUCCESS;
}

EXPORT CUresult cuEventSynchronize(CUevent event)
{
    (void)event;
    return cuStreamSynchronize(NULL);
}

EXPORT CUresult cuEventQuery(CUevent event) { return cuEventSynchronize(event); }

EXPORT CUresult cuEventElapsedTime_v2(float *milliseconds, CUevent begin, CUevent end)
{
    if (!begin->recorded || !end->recorded)
        return CUDA_ERROR_INVALID_HANDLE;
    double seconds = (double)(end->at.tv_sec - begin->at.tv_sec) + (end->at.tv_nsec - begin->at.tv_nsec) / 1e9;
    *milliseconds = (float)(seconds * 1000);
    return CUDA_SUCCESS;
}

EXPORT CUresult cuEventElapsedTime(float *milliseconds, CUevent begin, CUevent end)
{
    return cuEventElapsedTime_v2(milliseconds, begin, end);
}
