/* cuMemAlloc and its kin: memory that belongs to a context. */
#ifndef SIMGPU_CLASSIC_H
#define SIMGPU_CLASSIC_H

#include "cuda_abi.h"

/* Free every allocation of a context that ends. */
void classic_free_all(const struct context *context);

#endif
