/* Contexts: what a client needs before it can use a GPU's memory.
 *
 * 1. A context takes memory of its own, so that one process can never hold all of a GPU.
 * 2. A context that met an uncorrectable error or an illegal address is broken: every later call returns that error.
 * 3. A destroyed context frees its own memory and its classic allocations. VMM handles belong to the process.
 * 4. A process forked after cuInit cannot use the driver, as with the real one. */
#ifndef SIMGPU_CONTEXT_H
#define SIMGPU_CONTEXT_H

#include "cuda_abi.h"
#include "gpu.h"

/* The current context, if calls may go on: driver initialised, context alive and not broken, GPU not lost. */
CUresult context_enter(CUcontext *context);

/* The GPU of an ordinal, if calls may go on. */
CUresult device_enter(CUdevice device, struct gpu **gpu);

struct gpu *context_gpu(const struct context *context);

/* Break the context for good; returns the error. */
CUresult context_break(CUcontext context, CUresult error);

#endif
