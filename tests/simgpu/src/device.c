/* Devices: what they are called and what they can do. */
#include "context.h"
#include "identity.h"
#include "kernels.h"

#include <stdio.h>
#include <string.h>

EXPORT CUresult cuDriverGetVersion(int *version)
{
    *version = DRIVER_VERSION;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceGetCount(int *count)
{
    struct gpu *gpu;
    *count = gpu_count();
    return device_enter(0, &gpu) == CUDA_ERROR_NOT_INITIALIZED ? CUDA_ERROR_NOT_INITIALIZED : CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceGet(CUdevice *device, int ordinal)
{
    struct gpu *gpu;
    *device = ordinal;
    return device_enter(ordinal, &gpu);
}

EXPORT CUresult cuDeviceGetName(char *name, int size, CUdevice device)
{
    struct gpu *gpu;
    CUresult status = device_enter(device, &gpu);
    if (status == CUDA_SUCCESS && size > 0)
        identity_text(gpu, "name", name, size);
    return status;
}

EXPORT CUresult cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice device)
{
    struct gpu *gpu;
    CUresult status = device_enter(device, &gpu);
    if (status == CUDA_SUCCESS)
        identity_uuid(gpu, uuid->bytes);
    return status;
}

EXPORT CUresult cuDeviceGetUuid(CUuuid *uuid, CUdevice device) { return cuDeviceGetUuid_v2(uuid, device); }

EXPORT CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device)
{
    struct gpu *gpu;
    CUresult status = device_enter(device, &gpu);
    if (status == CUDA_SUCCESS)
        *bytes = gpu_total_bytes(gpu) - gpu_reserved_bytes();
    return status;
}

EXPORT CUresult cuDeviceGetPCIBusId(char *text, int size, CUdevice device)
{
    struct gpu *gpu;
    CUresult status = device_enter(device, &gpu);
    if (status != CUDA_SUCCESS)
        return status;
    struct pci_address pci = identity_pci(gpu);
    snprintf(text, size, "%04x:%02x:%02x.0", pci.domain, pci.bus, pci.device);
    return CUDA_SUCCESS;
}

/* Attribute numbers of CUdevice_attribute, and what this GPU (compute capability 9.0) answers.
 * What is not listed is 0: unsupported. */
EXPORT CUresult cuDeviceGetAttribute(int *value, int attribute, CUdevice device)
{
    struct gpu *gpu;
    CUresult status = device_enter(device, &gpu);
    if (status != CUDA_SUCCESS)
        return status;
    switch (attribute) {
    case 1: *value = 1024; break;             /* threads per block */
    case 2: case 3: *value = 1024; break;     /* block dimensions x, y */
    case 4: *value = 64; break;               /* block dimension z */
    case 5: *value = 0x7fffffff; break;       /* grid dimension x */
    case 6: case 7: *value = 65535; break;    /* grid dimensions y, z */
    case 8: *value = ORDINARY_SHARED_BYTES; break; /* shared memory per block, unless asked for more */
    case 10: *value = 32; break;              /* warp size */
    case 16: *value = MULTIPROCESSORS; break; /* multiprocessors */
    case 32: *value = 1; break;               /* ECC */
    case 33: *value = (int)identity_pci(gpu).bus; break;
    case 34: *value = (int)identity_pci(gpu).device; break;
    case 39: *value = 2048; break;            /* threads per multiprocessor */
    case 41: *value = 1; break;               /* unified addressing */
    case 75: *value = 9; break;               /* compute capability, major */
    case 76: *value = 0; break;               /* and minor */
    case 81: *value = SHARED_BYTES; break;    /* shared memory per multiprocessor */
    case 97: *value = BLOCK_SHARED_BYTES; break; /* shared memory per block, at most */
    case 102: *value = 1; break;              /* virtual memory management */
    default: *value = 0; break;
    }
    return CUDA_SUCCESS;
}
