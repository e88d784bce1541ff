/* The kernels that this driver can run: those of scrub.cu, compiled for the host. */
#ifndef SIMGPU_KERNELS_H
#define SIMGPU_KERNELS_H

#include "cuda_abi.h"
#include "faults.h"

/* A block may take this much shared memory; more only with cuFuncSetAttribute, and the driver keeps 1 KiB. */
enum { ORDINARY_SHARED_BYTES = 48 * 1024, BLOCK_SHARED_BYTES = SHARED_BYTES - 1024 };

struct launch_size { unsigned int grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes; };

/* The range that a launch wrote, for the faults. */
struct written { CUdeviceptr address; size_t bytes; };

struct kernel {
    const char *name;
    enum write_kind writes;
    /* Run every thread; CUDA_ERROR_ILLEGAL_ADDRESS, without running one, when a range is not accessible. */
    CUresult (*run)(const struct gpu *gpu, void **arguments, const struct launch_size *size, struct written *written);
};

/* NULL when there is no kernel of that name. */
const struct kernel *kernel_named(const char *name);

#endif
