#define _GNU_SOURCE
#include "faults.h"

#include "space.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

CUresult fault_of_call(const struct gpu *gpu)
{
    return gpu_has_fault(gpu, "lost") ? CUDA_ERROR_UNKNOWN : CUDA_SUCCESS;
}

enum { HANGING_LAUNCHES = 1, HANGING_ALLOCATIONS = 2 };

static void wait_while_hanging(const struct gpu *gpu, uint64_t degree)
{
    const struct timespec pause = {.tv_nsec = 20 * 1000 * 1000};
    struct settings faults;
    for (gpu_read_faults(gpu, &faults); settings_number(&faults, "hang", 0) >= degree; gpu_read_faults(gpu, &faults))
        nanosleep(&pause, NULL);
}

void fault_of_taking(const struct gpu *gpu) { wait_while_hanging(gpu, HANGING_ALLOCATIONS); }

CUresult fault_of_launch(const struct gpu *gpu)
{
    wait_while_hanging(gpu, HANGING_LAUNCHES);
    return gpu_has_fault(gpu, "uncorrectable_ecc") ? CUDA_ERROR_ECC_UNCORRECTABLE : CUDA_SUCCESS;
}

struct shared_fault fault_of_shared_memory(const struct gpu *gpu)
{
    struct settings faults;
    gpu_read_faults(gpu, &faults);
    return (struct shared_fault){
        .missed = settings_number(&faults, "missed_multiprocessor", UINT64_MAX),
        .stuck_offset = settings_number(&faults, "shared_stuck_offset", UINT64_MAX),
        .stuck_value = settings_number(&faults, "shared_stuck_value", 0xff),
    };
}

static void flip_bits(const struct gpu *gpu, const struct settings *faults, enum write_kind kind, CUdeviceptr begin,
                      size_t bytes)
{
    char after[16];
    CUdeviceptr address;
    uint64_t offset = settings_number(faults, "bit_flip_offset", UINT64_MAX);
    if (offset == UINT64_MAX)
        return;
    settings_text(faults, "bit_flip_after", after, sizeof after);
    if (kind == (strcmp(after, "zero") == 0 ? WRITES_ZEROS : WRITES_PATTERN) &&
        space_locate(gpu, offset, begin, bytes, &address))
        *(uint8_t *)address ^= settings_number(faults, "bit_flip_mask", 1);
}

static void hold_stuck_cell(const struct gpu *gpu, const struct settings *faults)
{
    uint64_t offset = settings_number(faults, "stuck_offset", UINT64_MAX);
    uint8_t value = settings_number(faults, "stuck_value", 0xff);
    if (offset >= gpu_total_bytes(gpu))
        return;
    if (pwrite(gpu->memory_fd, &value, 1, offset) != 1) {
        perror("simgpu: cannot write the stuck cell");
        abort();
    }
}

void fault_after_write(const struct gpu *gpu, enum write_kind kind, CUdeviceptr address, size_t bytes)
{
    struct settings faults;
    gpu_read_faults(gpu, &faults);
    flip_bits(gpu, &faults, kind, address, bytes);
    hold_stuck_cell(gpu, &faults);
}
