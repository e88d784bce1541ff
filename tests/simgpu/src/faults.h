/* Faults that tests inject into the simulated libcuda.so.1; README.md lists the keys of the file. */
#ifndef SIMGPU_FAULTS_H
#define SIMGPU_FAULTS_H

#include "cuda_abi.h"
#include "gpu.h"

enum write_kind { WRITES_NOTHING, WRITES_PATTERN, WRITES_ZEROS, WRITES_OTHER };

/* What any call for this GPU fails with; CUDA_SUCCESS when it may go on. */
CUresult fault_of_call(const struct gpu *gpu);

/* The same for a kernel launch; returns only when the GPU does not hang (any more). */
CUresult fault_of_launch(const struct gpu *gpu);

/* For what takes memory: returns only when the GPU does not hang so badly (any more). */
void fault_of_taking(const struct gpu *gpu);

/* What is wrong with shared memory: a multiprocessor that gets no block, a byte (counted over all multiprocessors) that
 * keeps its value; far out of range when nothing is. */
struct shared_fault { uint64_t missed, stuck_offset; uint8_t stuck_value; };
struct shared_fault fault_of_shared_memory(const struct gpu *gpu);

/* Damage memory that was just written. */
void fault_after_write(const struct gpu *gpu, enum write_kind kind, CUdeviceptr address, size_t bytes);

#endif
