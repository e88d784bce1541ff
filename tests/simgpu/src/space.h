/* Device memory of this process: physical blocks, reserved addresses, and mappings of one into the other.
 *
 * 1. A device address is a host address of this process: a block's pages of the `mem` file are mapped there. Kernels
 *    compiled for the host and copies need no translation.
 * 2. A block counts its references, its handle's and one per mapping; its pages are freed with the last. A released
 *    handle therefore keeps its memory until the last unmap, as the driver does.
 * 3. Nothing may touch an address without access: `space_allows` is asked before each copy, memset and kernel. */
#ifndef SIMGPU_SPACE_H
#define SIMGPU_SPACE_H

#include "cuda_abi.h"
#include "gpu.h"

enum { SMALL_GRANULARITY = PAGE_BYTES, LARGE_GRANULARITY = 2 << 20 };

/* NULL when the GPU is out of memory. The caller holds one reference. */
struct block *block_create(struct gpu *gpu, size_t bytes);
void block_release(struct block *block);
struct gpu *block_gpu(const struct block *block);
size_t block_bytes(const struct block *block);

/* Check that a handle given by a client is one of ours. */
bool block_is_known(const struct block *block);

CUresult space_reserve(size_t bytes, size_t alignment, CUdeviceptr *address);
CUresult space_unreserve(CUdeviceptr address, size_t bytes);
CUresult space_map(CUdeviceptr address, size_t bytes, struct block *block);
CUresult space_unmap(CUdeviceptr address, size_t bytes);
CUresult space_set_access(CUdeviceptr address, size_t bytes, int access);
CUresult space_access(CUdeviceptr address, int *access);

bool space_is_device(CUdeviceptr address);
bool space_allows(CUdeviceptr address, size_t bytes, bool write);

/* The mapping that `address` lies in; false when there is none. */
bool space_mapping(CUdeviceptr address, CUdeviceptr *begin, size_t *bytes, struct block **block);

/* Where byte `offset` of the GPU's memory shows within a range of addresses; false when it does not. */
bool space_locate(const struct gpu *gpu, uint64_t offset, CUdeviceptr begin, size_t bytes, CUdeviceptr *address);

#endif
