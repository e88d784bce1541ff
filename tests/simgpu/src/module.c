/* Modules and launches. A module is PTX text; its functions are the names after `.entry`. */
#include "context.h"
#include "kernels.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_BLOCK_THREADS = 1024 };

struct function {
    const struct kernel *kernel;
    unsigned int shared_limit; /* bytes that a launch may ask for */
    struct function *next;
};

struct module {
    char *ptx;
    struct function *functions;
};

static bool has_entry(const char *ptx, const char *name)
{
    size_t length = strlen(name);
    for (const char *at = ptx; (at = strstr(at, ".entry")) != NULL;) {
        at += strlen(".entry");
        at += strspn(at, " \t\n");
        if (strncmp(at, name, length) == 0 && !isalnum((unsigned char)at[length]) && at[length] != '_')
            return true;
    }
    return false;
}

EXPORT CUresult cuModuleLoadData(CUmodule *module, const void *image)
{
    CUcontext context;
    CUresult status = context_enter(&context);
    if (status != CUDA_SUCCESS)
        return status;
    if (image == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    if (strstr(image, ".version") == NULL || strstr(image, ".target") == NULL)
        return CUDA_ERROR_INVALID_PTX;
    CUmodule loaded = calloc(1, sizeof *loaded);
    if (loaded == NULL || (loaded->ptx = strdup(image)) == NULL) {
        free(loaded);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    *module = loaded;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned int count, int *options, void **values)
{
    (void)count, (void)options, (void)values; /* they tune the PTX compiler */
    return cuModuleLoadData(module, image);
}

EXPORT CUresult cuModuleUnload(CUmodule module)
{
    while (module->functions != NULL) {
        struct function *function = module->functions;
        module->functions = function->next;
        free(function);
    }
    free(module->ptx);
    free(module);
    return CUDA_SUCCESS;
}

EXPORT CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name)
{
    if (!has_entry(module->ptx, name))
        return CUDA_ERROR_NOT_FOUND;
    const struct kernel *kernel = kernel_named(name);
    if (kernel == NULL)
        return CUDA_ERROR_NOT_SUPPORTED; /* a real GPU would run it; there is no C body of it here */
    struct function *found = malloc(sizeof *found);
    if (found == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *found = (struct function){kernel, ORDINARY_SHARED_BYTES, module->functions};
    module->functions = *function = found;
    return CUDA_SUCCESS;
}

static bool is_launchable(const struct launch_size *size)
{
    uint64_t threads = (uint64_t)size->block_x * size->block_y * size->block_z;
    return size->grid_x > 0 && size->grid_y > 0 && size->grid_z > 0 && threads > 0 && threads <= MAX_BLOCK_THREADS;
}

EXPORT CUresult cuLaunchKernel(CUfunction function, unsigned int grid_x, unsigned int grid_y, unsigned int grid_z,
                               unsigned int block_x, unsigned int block_y, unsigned int block_z,
                               unsigned int shared_bytes, CUstream stream, void **arguments, void **extra)
{
    CUcontext context;
    struct launch_size size = {grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes};
    struct written written;
    CUresult status = context_enter(&context);
    (void)stream;
    if (status != CUDA_SUCCESS)
        return status;
    if (function == NULL || arguments == NULL || extra != NULL || shared_bytes > function->shared_limit ||
        !is_launchable(&size))
        return CUDA_ERROR_INVALID_VALUE;
    gpu_count_event(context_gpu(context), function->kernel->name);
    status = fault_of_launch(context_gpu(context));
    if (status == CUDA_SUCCESS)
        status = function->kernel->run(context_gpu(context), arguments, &size, &written);
    if (status != CUDA_SUCCESS)
        return context_break(context, status);
    if (function->kernel->writes != WRITES_NOTHING)
        fault_after_write(context_gpu(context), function->kernel->writes, written.address, written.bytes);
    return CUDA_SUCCESS;
}

/* Attribute 0 is the most threads a block may have; the others describe resources that host code does not use. */
EXPORT CUresult cuFuncGetAttribute(int *value, int attribute, CUfunction function)
{
    if (function == NULL)
        return CUDA_ERROR_INVALID_HANDLE;
    *value = attribute == 0 ? MAX_BLOCK_THREADS : 0;
    return CUDA_SUCCESS;
}

/* Attribute 8 is the most dynamic shared memory that a launch may ask for. */
EXPORT CUresult cuFuncSetAttribute(CUfunction function, int attribute, int value)
{
    if (function == NULL)
        return CUDA_ERROR_INVALID_HANDLE;
    if (attribute != 8 || value < 0 || value > BLOCK_SHARED_BYTES)
        return CUDA_ERROR_INVALID_VALUE;
    function->shared_limit = (unsigned int)value;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, CUfunction function, int block_threads,
                                                            size_t shared_bytes)
{
    (void)shared_bytes;
    if (function == NULL || block_threads <= 0 || block_threads > MAX_BLOCK_THREADS)
        return CUDA_ERROR_INVALID_VALUE;
    *blocks = 2048 / block_threads;
    return CUDA_SUCCESS;
}
