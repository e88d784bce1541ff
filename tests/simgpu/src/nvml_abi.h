/* The part of NVML's binary interface that the simulated libnvidia-ml.so.1 serves. */
#ifndef SIMGPU_NVML_ABI_H
#define SIMGPU_NVML_ABI_H

#include "gpu.h"

#define EXPORT __attribute__((visibility("default")))

#define NVML_RESULTS(X)                                                                                                \
    X(NVML_SUCCESS, 0, "Success")                                                                                      \
    X(NVML_ERROR_UNINITIALIZED, 1, "Uninitialized")                                                                    \
    X(NVML_ERROR_INVALID_ARGUMENT, 2, "Invalid Argument")                                                              \
    X(NVML_ERROR_NOT_SUPPORTED, 3, "Not Supported")                                                                    \
    X(NVML_ERROR_NOT_FOUND, 6, "Not Found")                                                                            \
    X(NVML_ERROR_INSUFFICIENT_SIZE, 7, "Insufficient Size")                                                            \
    X(NVML_ERROR_DRIVER_NOT_LOADED, 9, "Driver Not Loaded")                                                            \
    X(NVML_ERROR_GPU_IS_LOST, 15, "GPU is lost")                                                                       \
    X(NVML_ERROR_LIB_RM_VERSION_MISMATCH, 18, "Driver/library version mismatch")                                       \
    X(NVML_ERROR_ARGUMENT_VERSION_MISMATCH, 25, "Argument version mismatch")

#define RESULT_MEMBER(name, number, text) name = number,
typedef enum { NVML_RESULTS(RESULT_MEMBER) } nvmlReturn;
#undef RESULT_MEMBER

typedef struct gpu *nvmlDevice;

struct memory_v1 { unsigned long long total, free, used; };

struct memory_v2 {
    unsigned int version;
    unsigned long long total, reserved, free, used;
};

struct bar1_memory { unsigned long long total, free, used; };

struct process_info {
    unsigned int pid;
    unsigned long long used_bytes;
    unsigned int gpu_instance, compute_instance;
};

struct pci_info {
    char legacy_bus_id[16];
    unsigned int domain, bus, device, device_id, subsystem_id;
    char bus_id[32];
};

struct field_value {
    unsigned int field, scope;
    long long timestamp, latency;
    unsigned int type, result;
    union { unsigned int number; unsigned long long whole; } value;
};

struct accounting_stats {
    unsigned int gpu_utilization, memory_utilization;
    unsigned long long max_bytes, time, start_time;
    unsigned int is_running, reserved[5];
};

struct conf_compute_state { unsigned int environment, feature, dev_tools; };

enum { MEMORY_VERSION_2 = 2 << 24 | sizeof(struct memory_v2) };
enum { NO_INSTANCE = 0xffffffff };

/* Success when NVML is initialised and the GPU is there. */
nvmlReturn nvml_enter(nvmlDevice device);

/* Copy a text into a caller's buffer. */
nvmlReturn nvml_copy(const char *text, char *buffer, unsigned int size);

/* nvml_enter, then the number of `key` in the GPU's fault file, or `otherwise`. */
nvmlReturn nvml_setting(nvmlDevice device, const char *key, unsigned long long otherwise, unsigned long long *value);

#endif
