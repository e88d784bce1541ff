#include "cuda_abi.h"

static const struct { CUresult number; const char *name, *text; } results[] = {
#define RESULT_ROW(name, number, text) {name, #name, text},
    CUDA_RESULTS(RESULT_ROW)
#undef RESULT_ROW
};

enum { RESULT_COUNT = sizeof results / sizeof results[0] };

EXPORT CUresult cuGetErrorName(CUresult error, const char **name)
{
    for (int i = 0; i < RESULT_COUNT; i++)
        if (results[i].number == error) {
            *name = results[i].name;
            return CUDA_SUCCESS;
        }
    *name = NULL;
    return CUDA_ERROR_INVALID_VALUE;
}

EXPORT CUresult cuGetErrorString(CUresult error, const char **text)
{
    for (int i = 0; i < RESULT_COUNT; i++)
        if (results[i].number == error) {
            *text = results[i].text;
            return CUDA_SUCCESS;
        }
    *text = NULL;
    return CUDA_ERROR_INVALID_VALUE;
}
