/* Start-up, device handles and identity. */
#define _GNU_SOURCE
#include "nvml_abi.h"

#include "identity.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#define DRIVER_VERSION "575.0.0-simulated"

enum { CUDA_VERSION = 12090, PCI_DEVICE_ID = 0x233010de, PCI_SUBSYSTEM_ID = 0x16c110de };

static int users;

nvmlReturn nvml_enter(nvmlDevice device)
{
    if (users == 0)
        return NVML_ERROR_UNINITIALIZED;
    if (device == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    return gpu_has_fault(device, "lost") ? NVML_ERROR_GPU_IS_LOST : NVML_SUCCESS;
}

nvmlReturn nvml_copy(const char *text, char *buffer, unsigned int size)
{
    if (strlen(text) >= size)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    strcpy(buffer, text);
    return NVML_SUCCESS;
}

nvmlReturn nvml_setting(nvmlDevice device, const char *key, unsigned long long otherwise, unsigned long long *value)
{
    struct settings faults;
    nvmlReturn status = nvml_enter(device);
    if (status != NVML_SUCCESS)
        return status;
    gpu_read_faults(device, &faults);
    *value = settings_number(&faults, key, otherwise);
    return NVML_SUCCESS;
}

EXPORT nvmlReturn nvmlInitWithFlags(unsigned int flags)
{
    (void)flags;
    if (gpu_open_all() == 0)
        return NVML_ERROR_DRIVER_NOT_LOADED;
    if (gpu_driver_mismatches())
        return NVML_ERROR_LIB_RM_VERSION_MISMATCH;
    __atomic_fetch_add(&users, 1, __ATOMIC_RELAXED);
    return NVML_SUCCESS;
}

EXPORT nvmlReturn nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

EXPORT nvmlReturn nvmlInit(void) { return nvmlInitWithFlags(0); }

EXPORT nvmlReturn nvmlShutdown(void)
{
    if (users == 0)
        return NVML_ERROR_UNINITIALIZED;
    __atomic_fetch_sub(&users, 1, __ATOMIC_RELAXED);
    return NVML_SUCCESS;
}

EXPORT const char *nvmlErrorString(nvmlReturn result)
{
    switch (result) {
#define RESULT_CASE(name, number, text)                                                                                \
    case name:                                                                                                         \
        return text;
        NVML_RESULTS(RESULT_CASE)
#undef RESULT_CASE
    }
    return "Unknown Error";
}

EXPORT nvmlReturn nvmlSystemGetDriverVersion(char *version, unsigned int size)
{
    return users == 0 ? NVML_ERROR_UNINITIALIZED : nvml_copy(DRIVER_VERSION, version, size);
}

EXPORT nvmlReturn nvmlSystemGetNVMLVersion(char *version, unsigned int size)
{
    return users == 0 ? NVML_ERROR_UNINITIALIZED : nvml_copy("12." DRIVER_VERSION, version, size);
}

EXPORT nvmlReturn nvmlSystemGetCudaDriverVersion(int *version)
{
    *version = CUDA_VERSION;
    return users == 0 ? NVML_ERROR_UNINITIALIZED : NVML_SUCCESS;
}

EXPORT nvmlReturn nvmlSystemGetCudaDriverVersion_v2(int *version) { return nvmlSystemGetCudaDriverVersion(version); }

EXPORT nvmlReturn nvmlSystemGetConfComputeState(struct conf_compute_state *state)
{
    *state = (struct conf_compute_state){0}; /* off */
    return users == 0 ? NVML_ERROR_UNINITIALIZED : NVML_SUCCESS;
}

EXPORT nvmlReturn nvmlDeviceGetCount_v2(unsigned int *count)
{
    *count = gpu_count();
    return users == 0 ? NVML_ERROR_UNINITIALIZED : NVML_SUCCESS;
}

EXPORT nvmlReturn nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice *device)
{
    *device = index < (unsigned int)gpu_count() ? gpu_at((int)index) : NULL;
    return nvml_enter(*device);
}

static nvmlReturn find_device(bool (*matches)(const struct gpu *, const char *), const char *wanted, nvmlDevice *device)
{
    if (users == 0)
        return NVML_ERROR_UNINITIALIZED;
    for (int i = 0; i < gpu_count(); i++)
        if (matches(gpu_at(i), wanted)) {
            *device = gpu_at(i);
            return nvml_enter(*device);
        }
    return NVML_ERROR_NOT_FOUND;
}

static void format_bus_id(const struct gpu *gpu, char text[static 32])
{
    struct pci_address pci = identity_pci(gpu);
    snprintf(text, 32, "%08X:%02X:%02X.0", pci.domain, pci.bus, pci.device);
}

static bool has_uuid(const struct gpu *gpu, const char *wanted)
{
    char uuid[80];
    identity_text(gpu, "uuid", uuid, sizeof uuid);
    return strcmp(uuid, wanted) == 0;
}

static bool has_serial(const struct gpu *gpu, const char *wanted)
{
    char serial[30];
    identity_text(gpu, "serial", serial, sizeof serial);
    return strcmp(serial, wanted) == 0;
}

static bool has_bus_id(const struct gpu *gpu, const char *wanted)
{
    char bus_id[32];
    format_bus_id(gpu, bus_id);
    return strcasecmp(bus_id, wanted) == 0 || strcasecmp(bus_id + 4, wanted) == 0;
}

EXPORT nvmlReturn nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice *device)
{
    return find_device(has_uuid, uuid, device);
}

EXPORT nvmlReturn nvmlDeviceGetHandleBySerial(const char *serial, nvmlDevice *device)
{
    return find_device(has_serial, serial, device);
}

EXPORT nvmlReturn nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, nvmlDevice *device)
{
    return find_device(has_bus_id, bus_id, device);
}

static nvmlReturn copy_identity(nvmlDevice device, const char *key, char *buffer, unsigned int size)
{
    char text[96];
    nvmlReturn status = nvml_enter(device);
    if (status != NVML_SUCCESS)
        return status;
    identity_text(device, key, text, sizeof text);
    return nvml_copy(text, buffer, size);
}

EXPORT nvmlReturn nvmlDeviceGetName(nvmlDevice device, char *name, unsigned int size)
{
    return copy_identity(device, "name", name, size);
}

EXPORT nvmlReturn nvmlDeviceGetUUID(nvmlDevice device, char *uuid, unsigned int size)
{
    return copy_identity(device, "uuid", uuid, size);
}

EXPORT nvmlReturn nvmlDeviceGetSerial(nvmlDevice device, char *serial, unsigned int size)
{
    return copy_identity(device, "serial", serial, size);
}

EXPORT nvmlReturn nvmlDeviceGetVbiosVersion(nvmlDevice device, char *version, unsigned int size)
{
    return copy_identity(device, "vbios", version, size);
}

EXPORT nvmlReturn nvmlDeviceGetMinorNumber(nvmlDevice device, unsigned int *minor)
{
    nvmlReturn status = nvml_enter(device);
    if (status == NVML_SUCCESS)
        *minor = (unsigned int)settings_number(&device->identity, "minor", 0);
    return status;
}

EXPORT nvmlReturn nvmlDeviceGetIndex(nvmlDevice device, unsigned int *index)
{
    nvmlReturn status = nvml_enter(device);
    if (status == NVML_SUCCESS)
        *index = (unsigned int)(device - gpu_at(0));
    return status;
}

EXPORT nvmlReturn nvmlDeviceGetPciInfo_v3(nvmlDevice device, struct pci_info *info)
{
    nvmlReturn status = nvml_enter(device);
    if (status != NVML_SUCCESS)
        return status;
    struct pci_address pci = identity_pci(device);
    *info = (struct pci_info){.domain = pci.domain, .bus = pci.bus, .device = pci.device,
                              .device_id = PCI_DEVICE_ID, .subsystem_id = PCI_SUBSYSTEM_ID};
    format_bus_id(device, info->bus_id);
    snprintf(info->legacy_bus_id, sizeof info->legacy_bus_id, "%.12s", info->bus_id + 4);
    return NVML_SUCCESS;
}

EXPORT nvmlReturn nvmlDeviceGetCudaComputeCapability(nvmlDevice device, int *major, int *minor)
{
    *major = 9;
    *minor = 0;
    return nvml_enter(device);
}
