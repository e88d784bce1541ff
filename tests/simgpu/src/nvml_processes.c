/* Who uses the GPU. As with the real driver, a process that the caller's PID namespace cannot see is not listed, so an
 * empty list proves nothing without the host's PID namespace. */
#include "nvml_abi.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static nvmlReturn no_processes(nvmlDevice device, unsigned int *count)
{
    *count = 0;
    return nvml_enter(device);
}

EXPORT nvmlReturn nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice device, unsigned int *count,
                                                          struct process_info *processes)
{
    struct gpu_client clients[MAX_SLOTS];
    unsigned int capacity = *count, visible = 0;
    nvmlReturn status = nvml_enter(device);
    if (status != NVML_SUCCESS)
        return status;
    int found = gpu_clients(device, clients);
    for (int i = 0; i < found; i++) {
        if (clients[i].pid == 0)
            continue;
        if (visible < capacity && processes != NULL)
            processes[visible] = (struct process_info){(unsigned int)clients[i].pid, clients[i].bytes, NO_INSTANCE,
                                                       NO_INSTANCE};
        visible++;
    }
    *count = visible;
    return visible > capacity ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_SUCCESS;
}

EXPORT nvmlReturn nvmlDeviceGetGraphicsRunningProcesses_v3(nvmlDevice device, unsigned int *count,
                                                           struct process_info *processes)
{
    (void)processes;
    return no_processes(device, count);
}

EXPORT nvmlReturn nvmlDeviceGetMPSComputeRunningProcesses_v3(nvmlDevice device, unsigned int *count,
                                                             struct process_info *processes)
{
    (void)processes;
    return no_processes(device, count);
}

EXPORT nvmlReturn nvmlSystemGetProcessName(unsigned int pid, char *name, unsigned int size)
{
    char path[64], text[256];
    snprintf(path, sizeof path, "/proc/%u/cmdline", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return NVML_ERROR_NOT_FOUND;
    ssize_t length = read(fd, text, sizeof text - 1);
    close(fd);
    text[length > 0 ? length : 0] = '\0'; /* the program's name ends at the first zero byte */
    return nvml_copy(text, name, size);
}

EXPORT nvmlReturn nvmlDeviceGetAccountingMode(nvmlDevice device, unsigned int *mode)
{
    unsigned long long value;
    nvmlReturn status = nvml_setting(device, "accounting", 0, &value);
    if (status == NVML_SUCCESS)
        *mode = (unsigned int)value;
    return status;
}

EXPORT nvmlReturn nvmlDeviceGetAccountingBufferSize(nvmlDevice device, unsigned int *size)
{
    *size = 4000;
    return nvml_enter(device);
}

/* Records of ended processes are not kept. */
EXPORT nvmlReturn nvmlDeviceGetAccountingPids(nvmlDevice device, unsigned int *count, unsigned int *pids)
{
    (void)pids;
    return no_processes(device, count);
}

EXPORT nvmlReturn nvmlDeviceGetAccountingStats(nvmlDevice device, unsigned int pid, struct accounting_stats *stats)
{
    nvmlReturn status = nvml_enter(device);
    (void)pid;
    memset(stats, 0, sizeof *stats);
    return status == NVML_SUCCESS ? NVML_ERROR_NOT_FOUND : status;
}

EXPORT nvmlReturn nvmlDeviceClearAccountingPids(nvmlDevice device) { return nvml_enter(device); }
