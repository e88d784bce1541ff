/* Video memory, the window of it in the host's address space (BAR1), and rows that were replaced by spare ones. */
#include "nvml_abi.h"

EXPORT nvmlReturn nvmlDeviceGetMemoryInfo_v2(nvmlDevice device, struct memory_v2 *memory)
{
    nvmlReturn status = nvml_enter(device);
    if (status != NVML_SUCCESS)
        return status;
    if (memory->version != MEMORY_VERSION_2)
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    memory->total = gpu_total_bytes(device);
    memory->reserved = gpu_reserved_bytes();
    memory->used = gpu_used_bytes(device);
    memory->free = memory->total - memory->reserved - memory->used;
    return NVML_SUCCESS;
}

/* The first version counts what the driver reserves as used. */
EXPORT nvmlReturn nvmlDeviceGetMemoryInfo(nvmlDevice device, struct memory_v1 *memory)
{
    struct memory_v2 now = {.version = MEMORY_VERSION_2};
    nvmlReturn status = nvmlDeviceGetMemoryInfo_v2(device, &now);
    if (status == NVML_SUCCESS)
        *memory = (struct memory_v1){now.total, now.free, now.used + now.reserved};
    return status;
}

EXPORT nvmlReturn nvmlDeviceGetBAR1MemoryInfo(nvmlDevice device, struct bar1_memory *memory)
{
    unsigned long long used;
    nvmlReturn status = nvml_setting(device, "bar1_used", 0, &used);
    if (status == NVML_SUCCESS)
        *memory = (struct bar1_memory){gpu_total_bytes(device), gpu_total_bytes(device) - used, used};
    return status;
}

EXPORT nvmlReturn nvmlDeviceGetRemappedRows(nvmlDevice device, unsigned int *correctable, unsigned int *uncorrectable,
                                            unsigned int *is_pending, unsigned int *has_failed)
{
    unsigned int *results[] = {correctable, uncorrectable, is_pending, has_failed};
    static const char *const keys[] = {"remapped_correctable", "remapped_uncorrectable", "remap_pending",
                                       "remap_failure"};
    for (int i = 0; i < 4; i++) {
        unsigned long long value;
        nvmlReturn status = nvml_setting(device, keys[i], 0, &value);
        if (status != NVML_SUCCESS)
            return status;
        *results[i] = (unsigned int)value;
    }
    return NVML_SUCCESS;
}
