/* cuGetProcAddress: clients ask for a name without its suffix and the CUDA version that they were built for, and get
 * the newest variant that this version knows. */
#include "cuda_abi.h"

#include <string.h>

/* name, exported symbol, version that brought this variant; of one name, the newest comes first */
#define ENTRY_POINTS(X)                                                                                                \
    X(cuInit, cuInit, 2000)                                                                                            \
    X(cuGetErrorName, cuGetErrorName, 6000)                                                                            \
    X(cuGetErrorString, cuGetErrorString, 6000)                                                                        \
    X(cuDriverGetVersion, cuDriverGetVersion, 2020)                                                                    \
    X(cuGetProcAddress, cuGetProcAddress_v2, 12000)                                                                    \
    X(cuGetProcAddress, cuGetProcAddress, 11030)                                                                       \
    X(cuDeviceGet, cuDeviceGet, 2000)                                                                                  \
    X(cuDeviceGetCount, cuDeviceGetCount, 2000)                                                                        \
    X(cuDeviceGetName, cuDeviceGetName, 2000)                                                                          \
    X(cuDeviceGetUuid, cuDeviceGetUuid_v2, 11040)                                                                      \
    X(cuDeviceGetUuid, cuDeviceGetUuid, 9020)                                                                          \
    X(cuDeviceTotalMem, cuDeviceTotalMem_v2, 3020)                                                                     \
    X(cuDeviceGetAttribute, cuDeviceGetAttribute, 2000)                                                                \
    X(cuDeviceGetPCIBusId, cuDeviceGetPCIBusId, 4010)                                                                  \
    X(cuDevicePrimaryCtxRetain, cuDevicePrimaryCtxRetain, 7000)                                                        \
    X(cuDevicePrimaryCtxRelease, cuDevicePrimaryCtxRelease_v2, 11000)                                                  \
    X(cuDevicePrimaryCtxReset, cuDevicePrimaryCtxReset_v2, 11000)                                                      \
    X(cuDevicePrimaryCtxGetState, cuDevicePrimaryCtxGetState, 7000)                                                    \
    X(cuCtxCreate, cuCtxCreate_v4, 12050)                                                                              \
    X(cuCtxCreate, cuCtxCreate_v3, 11040)                                                                              \
    X(cuCtxCreate, cuCtxCreate_v2, 3020)                                                                               \
    X(cuCtxDestroy, cuCtxDestroy_v2, 4000)                                                                             \
    X(cuCtxPushCurrent, cuCtxPushCurrent_v2, 4000)                                                                     \
    X(cuCtxPopCurrent, cuCtxPopCurrent_v2, 4000)                                                                       \
    X(cuCtxSetCurrent, cuCtxSetCurrent, 4000)                                                                          \
    X(cuCtxGetCurrent, cuCtxGetCurrent, 4000)                                                                          \
    X(cuCtxGetDevice, cuCtxGetDevice, 2000)                                                                            \
    X(cuCtxSynchronize, cuCtxSynchronize, 2000)                                                                        \
    X(cuMemGetInfo, cuMemGetInfo_v2, 3020)                                                                             \
    X(cuMemAlloc, cuMemAlloc_v2, 3020)                                                                                 \
    X(cuMemFree, cuMemFree_v2, 3020)                                                                                   \
    X(cuMemGetAddressRange, cuMemGetAddressRange_v2, 3020)                                                             \
    X(cuMemAllocHost, cuMemAllocHost_v2, 3020)                                                                         \
    X(cuMemHostAlloc, cuMemHostAlloc, 2020)                                                                            \
    X(cuMemFreeHost, cuMemFreeHost, 2000)                                                                              \
    X(cuMemcpy, cuMemcpy, 4000)                                                                                        \
    X(cuMemcpyAsync, cuMemcpyAsync, 4000)                                                                              \
    X(cuMemcpyHtoD, cuMemcpyHtoD_v2, 3020)                                                                             \
    X(cuMemcpyHtoDAsync, cuMemcpyHtoDAsync_v2, 3020)                                                                   \
    X(cuMemcpyDtoH, cuMemcpyDtoH_v2, 3020)                                                                             \
    X(cuMemcpyDtoHAsync, cuMemcpyDtoHAsync_v2, 3020)                                                                   \
    X(cuMemcpyDtoD, cuMemcpyDtoD_v2, 3020)                                                                             \
    X(cuMemcpyDtoDAsync, cuMemcpyDtoDAsync_v2, 3020)                                                                   \
    X(cuMemsetD8, cuMemsetD8_v2, 3020)                                                                                 \
    X(cuMemsetD16, cuMemsetD16_v2, 3020)                                                                               \
    X(cuMemsetD32, cuMemsetD32_v2, 3020)                                                                               \
    X(cuMemsetD8Async, cuMemsetD8Async, 3020)                                                                          \
    X(cuMemsetD16Async, cuMemsetD16Async, 3020)                                                                        \
    X(cuMemsetD32Async, cuMemsetD32Async, 3020)                                                                        \
    X(cuMemGetAllocationGranularity, cuMemGetAllocationGranularity, 10020)                                             \
    X(cuMemCreate, cuMemCreate, 10020)                                                                                 \
    X(cuMemRelease, cuMemRelease, 10020)                                                                               \
    X(cuMemAddressReserve, cuMemAddressReserve, 10020)                                                                 \
    X(cuMemAddressFree, cuMemAddressFree, 10020)                                                                       \
    X(cuMemMap, cuMemMap, 10020)                                                                                       \
    X(cuMemUnmap, cuMemUnmap, 10020)                                                                                   \
    X(cuMemSetAccess, cuMemSetAccess, 10020)                                                                           \
    X(cuMemGetAccess, cuMemGetAccess, 10020)                                                                           \
    X(cuStreamCreate, cuStreamCreate, 2000)                                                                            \
    X(cuStreamCreateWithPriority, cuStreamCreateWithPriority, 5050)                                                    \
    X(cuStreamDestroy, cuStreamDestroy_v2, 4000)                                                                       \
    X(cuStreamSynchronize, cuStreamSynchronize, 2000)                                                                  \
    X(cuStreamQuery, cuStreamQuery, 2000)                                                                              \
    X(cuStreamWaitEvent, cuStreamWaitEvent, 3020)                                                                      \
    X(cuEventCreate, cuEventCreate, 2000)                                                                              \
    X(cuEventDestroy, cuEventDestroy_v2, 4000)                                                                         \
    X(cuEventRecord, cuEventRecord, 2000)                                                                              \
    X(cuEventSynchronize, cuEventSynchronize, 2000)                                                                    \
    X(cuEventQuery, cuEventQuery, 2000)                                                                                \
    X(cuEventElapsedTime, cuEventElapsedTime_v2, 12080)                                                                \
    X(cuEventElapsedTime, cuEventElapsedTime, 2000)                                                                    \
    X(cuModuleLoadData, cuModuleLoadData, 2000)                                                                        \
    X(cuModuleLoadDataEx, cuModuleLoadDataEx, 2010)                                                                    \
    X(cuModuleUnload, cuModuleUnload, 2000)                                                                            \
    X(cuModuleGetFunction, cuModuleGetFunction, 2000)                                                                  \
    X(cuLaunchKernel, cuLaunchKernel, 4000)                                                                            \
    X(cuFuncSetAttribute, cuFuncSetAttribute, 9000)                                                                    \
    X(cuFuncGetAttribute, cuFuncGetAttribute, 2020)                                                                    \
    X(cuOccupancyMaxActiveBlocksPerMultiprocessor, cuOccupancyMaxActiveBlocksPerMultiprocessor, 6050)

/* Only the addresses matter here, so each is declared without its parameters. */
#define DECLARE(name, symbol, version) extern char address_of_##symbol[] __asm__(#symbol);
ENTRY_POINTS(DECLARE)
#undef DECLARE

static const struct { const char *name; void *function; int version; } entry_points[] = {
#define ROW(name, symbol, version) {#name, address_of_##symbol, version},
    ENTRY_POINTS(ROW)
#undef ROW
};

enum { FOUND = 0, NO_SUCH_NAME = 1, VERSION_TOO_OLD = 2 };

EXPORT CUresult cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags, int *status)
{
    int found = NO_SUCH_NAME;
    (void)flags; /* which default stream: all work is synchronous */
    *function = NULL;
    for (size_t i = 0; i < sizeof entry_points / sizeof entry_points[0] && *function == NULL; i++) {
        if (strcmp(entry_points[i].name, name) != 0)
            continue;
        found = version >= entry_points[i].version ? FOUND : VERSION_TOO_OLD;
        if (found == FOUND)
            *function = entry_points[i].function;
    }
    if (status != NULL)
        *status = found;
    return found == FOUND ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

EXPORT CUresult cuGetProcAddress(const char *name, void **function, int version, uint64_t flags)
{
    return cuGetProcAddress_v2(name, function, version, flags, NULL);
}
