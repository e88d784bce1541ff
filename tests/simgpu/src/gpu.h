/* A simulated GPU: a folder that outlives processes, pods and nodes.
 *
 *   mem       video memory; its size is the GPU's
 *   shared    shared memory of the multiprocessors, one after the other; a block finds there what an earlier one left
 *   state     who owns each 64 KiB page, and the locks that tell living clients from dead ones
 *   pids      locks that tell NVML the process ids of clients
 *   identity  uuid, serial, name, PCI address, minor number (text)
 *   faults    what is to go wrong, and driver settings (text, may be missing)
 *   events    a byte for each event that a fault waits for (see gpu_count_event)
 *
 * Rules
 *  1. A client holds an open-file-description lock on its slot's byte of `state` from its first context to its death.
 *     Whoever takes the GPU's lock first frees the pages of slots that nobody holds. This works without process ids,
 *     hence across PID namespaces.
 *  2. Freed pages keep their contents, unless the fault file says scrub_on_free=1.
 *  3. A client also holds a POSIX lock on its slot's byte of `pids`: a query then gives its process id as the caller's
 *     PID namespace sees it. Any close of that file by the process would drop the lock, so it is never closed.
 *     A child forked by a client shares its slot, and keeps its pages when the client ends, but has no such lock.
 *  4. The first RESERVED_PAGES belong to the driver and are never given out. */
#ifndef SIMGPU_GPU_H
#define SIMGPU_GPU_H

#include "settings.h"

#include <pthread.h>
#include <sys/types.h>

enum {
    PAGE_BYTES = 64 * 1024,
    RESERVED_PAGES = 4, /* 256 KiB, as a share of a small GPU about what a real driver keeps */
    CONTEXT_PAGES = 8,  /* 512 KiB that a context takes for itself */
    MULTIPROCESSORS = 4,
    SHARED_BYTES = 228 * 1024, /* of each multiprocessor */
    MAX_GPUS = 16,
    MAX_SLOTS = 255,
};

struct page {
    uint32_t slot;       /* the client that owns it; 0: free */
    uint32_t allocation; /* which of the client's allocations */
};

struct gpu {
    int folder_fd, memory_fd, state_fd, pids_fd;
    struct settings identity;
    struct page *pages;
    uint8_t *shared;
    uint32_t page_count;
    uint32_t slot; /* ours; 0: not a client yet */
    uint32_t last_allocation;
    pthread_mutex_t lock;
};

struct gpu_client {
    uint32_t slot;
    pid_t pid; /* 0: invisible from our PID namespace, or gone and survived by a child */
    uint64_t bytes;
};

/* Open the GPUs below $SIMGPU_DIR (/run/simgpu) once; return how many there are. */
int gpu_open_all(void);
int gpu_count(void);
struct gpu *gpu_at(int index);

/* Forget all GPUs but those whose UUIDs are in this list, divided by commas. */
void gpu_keep_only(const char *uuids);

/* Become a client; false when all slots are taken. */
bool gpu_attach(struct gpu *gpu);

/* Take `count` free pages, any, as they are; their numbers go into `numbers`, ascending. 0: out of memory. Else the
 * allocation's number. */
uint32_t gpu_take_pages(struct gpu *gpu, uint32_t count, uint32_t *numbers);
void gpu_free_pages(struct gpu *gpu, uint32_t allocation);

uint64_t gpu_total_bytes(const struct gpu *gpu);
uint64_t gpu_reserved_bytes(void);
uint64_t gpu_used_bytes(struct gpu *gpu); /* by clients, without the reserved ones */
int gpu_clients(struct gpu *gpu, struct gpu_client clients[static MAX_SLOTS]);

/* Count one `event` if the fault file waits for it: `strike_at` names it (any, when absent), and after `strike_after` of
 * them, counted over all clients since the file was written, the faults are in force. */
void gpu_count_event(const struct gpu *gpu, const char *event);

/* The fault file as it is now; an empty one while its faults still wait for an event. */
void gpu_read_faults(const struct gpu *gpu, struct settings *faults);
bool gpu_has_fault(const struct gpu *gpu, const char *name);
bool gpu_driver_mismatches(void);

#endif
