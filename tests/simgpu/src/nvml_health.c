/* Modes, memory errors, and what the driver wants done about them. */
#define _GNU_SOURCE
#include "nvml_abi.h"

#include <time.h>

enum { FIELD_RECOVERY_ACTION = 230, VALUE_UNSIGNED_INT = 1, ACTION_RESET = 1 };
enum { ERROR_CORRECTED = 0, ERROR_UNCORRECTED = 1 };

/* A setting that is a small number. */
static nvmlReturn get_mode(nvmlDevice device, const char *key, unsigned long long otherwise, unsigned int *mode)
{
    unsigned long long value = otherwise;
    nvmlReturn status = nvml_setting(device, key, otherwise, &value);
    *mode = (unsigned int)value;
    return status;
}

EXPORT nvmlReturn nvmlDeviceGetMigMode(nvmlDevice device, unsigned int *current, unsigned int *pending)
{
    nvmlReturn status = get_mode(device, "mig", 0, current);
    *pending = *current;
    return status;
}

EXPORT nvmlReturn nvmlDeviceGetMaxMigDeviceCount(nvmlDevice device, unsigned int *count)
{
    *count = 7;
    return nvml_enter(device);
}

EXPORT nvmlReturn nvmlDeviceGetEccMode(nvmlDevice device, unsigned int *current, unsigned int *pending)
{
    nvmlReturn status = get_mode(device, "ecc", 1, current);
    *pending = *current;
    return status;
}

EXPORT nvmlReturn nvmlDeviceGetComputeMode(nvmlDevice device, unsigned int *mode)
{
    return get_mode(device, "compute_mode", 0, mode);
}

EXPORT nvmlReturn nvmlDeviceGetPersistenceMode(nvmlDevice device, unsigned int *mode)
{
    return get_mode(device, "persistence", 1, mode);
}

/* A GPU with the fault `uncorrectable_ecc` has counted one error, if the file does not say how many. */
EXPORT nvmlReturn nvmlDeviceGetTotalEccErrors(nvmlDevice device, unsigned int type, unsigned int counter,
                                              unsigned long long *count)
{
    (void)counter; /* volatile and aggregate counts are the same here */
    if (type == ERROR_CORRECTED)
        return nvml_setting(device, "ecc_corrected", 0, count);
    if (type != ERROR_UNCORRECTED)
        return NVML_ERROR_INVALID_ARGUMENT;
    return nvml_setting(device, "ecc_uncorrected", gpu_has_fault(device, "uncorrectable_ecc"), count);
}

EXPORT nvmlReturn nvmlDeviceGetMemoryErrorCounter(nvmlDevice device, unsigned int type, unsigned int counter,
                                                  unsigned int location, unsigned long long *count)
{
    enum { DEVICE_MEMORY = 2 };
    nvmlReturn status = nvmlDeviceGetTotalEccErrors(device, type, counter, count);
    if (status == NVML_SUCCESS && location != DEVICE_MEMORY)
        *count = 0;
    return status;
}

EXPORT nvmlReturn nvmlDeviceGetFieldValues(nvmlDevice device, int count, struct field_value *values)
{
    nvmlReturn status = nvml_enter(device);
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    for (int i = 0; status == NVML_SUCCESS && i < count; i++) {
        values[i].timestamp = now.tv_sec * 1000000ll + now.tv_nsec / 1000;
        values[i].result = NVML_ERROR_NOT_SUPPORTED;
        if (values[i].field != FIELD_RECOVERY_ACTION)
            continue;
        unsigned int otherwise = gpu_has_fault(device, "uncorrectable_ecc") ? ACTION_RESET : 0;
        values[i].type = VALUE_UNSIGNED_INT;
        values[i].result = get_mode(device, "recovery_action", otherwise, &values[i].value.number);
    }
    return status;
}
