#define _GNU_SOURCE
#include "gpu.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Lock bytes lie far behind the data of `state`: byte LOCKS is the GPU's lock, LOCKS + n is slot n's. */
#define LOCKS (1ll << 40)

static struct gpu gpus[MAX_GPUS];
static int count;
static pthread_once_t opened = PTHREAD_ONCE_INIT;

static struct flock lock_byte(int fd, int command, short type, off_t byte, int *result)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
    do
        *result = fcntl(fd, command, &lock);
    while (*result < 0 && errno == EINTR);
    return lock;
}

static void lock_gpu(struct gpu *gpu)
{
    int result;
    pthread_mutex_lock(&gpu->lock);
    lock_byte(gpu->state_fd, F_OFD_SETLKW, F_WRLCK, LOCKS, &result);
    if (result < 0) {
        perror("simgpu: cannot lock the GPU's state file");
        abort();
    }
}

static void unlock_gpu(struct gpu *gpu)
{
    int result;
    lock_byte(gpu->state_fd, F_OFD_SETLK, F_UNLCK, LOCKS, &result);
    pthread_mutex_unlock(&gpu->lock);
}

static bool is_slot_alive(struct gpu *gpu, uint32_t slot)
{
    int result;
    if (slot == gpu->slot)
        return true; /* our own lock is no obstacle to us, so asking would say that nobody holds it */
    return lock_byte(gpu->state_fd, F_OFD_GETLK, F_WRLCK, LOCKS + slot, &result).l_type != F_UNLCK;
}

static void free_page(struct gpu *gpu, uint32_t number, bool scrub)
{
    static const char zeros[PAGE_BYTES];
    if (scrub && pwrite(gpu->memory_fd, zeros, PAGE_BYTES, (off_t)number * PAGE_BYTES) != PAGE_BYTES) {
        perror("simgpu: cannot scrub a freed page");
        abort();
    }
    gpu->pages[number].slot = 0;
}

/* Free what dead clients left. The GPU's lock is held. */
static void reap(struct gpu *gpu)
{
    enum { UNKNOWN, ALIVE, DEAD } seen[MAX_SLOTS + 1] = {UNKNOWN};
    bool scrub = gpu_has_fault(gpu, "scrub_on_free");
    for (uint32_t i = RESERVED_PAGES; i < gpu->page_count; i++) {
        uint32_t slot = gpu->pages[i].slot;
        if (slot == 0)
            continue;
        if (seen[slot] == UNKNOWN)
            seen[slot] = is_slot_alive(gpu, slot) ? ALIVE : DEAD;
        if (seen[slot] == DEAD)
            free_page(gpu, i, scrub);
    }
}

static bool open_gpu(struct gpu *gpu, const char *path)
{
    struct stat memory;
    const int access = PROT_READ | PROT_WRITE;
    gpu->folder_fd = open(path, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
    if (gpu->folder_fd < 0)
        return false;
    gpu->memory_fd = openat(gpu->folder_fd, "mem", O_RDWR | O_CLOEXEC);
    gpu->state_fd = openat(gpu->folder_fd, "state", O_RDWR | O_CLOEXEC);
    gpu->pids_fd = openat(gpu->folder_fd, "pids", O_RDWR | O_CLOEXEC);
    int shared_fd = openat(gpu->folder_fd, "shared", O_RDWR | O_CLOEXEC);
    if (gpu->memory_fd < 0 || gpu->state_fd < 0 || gpu->pids_fd < 0 || shared_fd < 0 ||
        fstat(gpu->memory_fd, &memory) < 0) {
        fprintf(stderr, "simgpu: %s lacks mem, shared, state or pids, or forbids writing them.\n", path);
        return false;
    }
    settings_read(&gpu->identity, gpu->folder_fd, "identity");
    gpu->page_count = memory.st_size / PAGE_BYTES;
    gpu->pages = mmap(NULL, gpu->page_count * sizeof *gpu->pages, access, MAP_SHARED, gpu->state_fd, 0);
    gpu->shared = mmap(NULL, MULTIPROCESSORS * SHARED_BYTES, access, MAP_SHARED, shared_fd, 0);
    close(shared_fd);
    pthread_mutex_init(&gpu->lock, NULL);
    return gpu->pages != MAP_FAILED && (void *)gpu->shared != MAP_FAILED;
}

static int is_gpu_folder(const struct dirent *entry) { return strncmp(entry->d_name, "gpu", 3) == 0; }

static void open_all(void)
{
    const char *root = getenv("SIMGPU_DIR");
    struct dirent **entries;
    int found = scandir(root ? root : "/run/simgpu", &entries, is_gpu_folder, versionsort);
    for (int i = 0; i < found; i++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/%s", root ? root : "/run/simgpu", entries[i]->d_name);
        if (count < MAX_GPUS && open_gpu(&gpus[count], path))
            count++;
        free(entries[i]);
    }
    if (found >= 0)
        free(entries);
}

int gpu_open_all(void)
{
    pthread_once(&opened, open_all);
    return count;
}

int gpu_count(void) { return count; }

struct gpu *gpu_at(int index) { return index >= 0 && index < count ? &gpus[index] : NULL; }

void gpu_keep_only(const char *uuids)
{
    int kept = 0;
    for (int i = 0; i < count; i++) {
        char uuid[64];
        settings_text(&gpus[i].identity, "uuid", uuid, sizeof uuid);
        if (strstr(uuids, uuid) != NULL)
            gpus[kept++] = gpus[i];
    }
    count = kept;
}

bool gpu_attach(struct gpu *gpu)
{
    int result;
    if (gpu->slot != 0)
        return true;
    lock_gpu(gpu);
    reap(gpu); /* a slot taken over must own nothing */
    for (uint32_t slot = 1; slot <= MAX_SLOTS && gpu->slot == 0; slot++) {
        lock_byte(gpu->state_fd, F_OFD_SETLK, F_WRLCK, LOCKS + slot, &result);
        if (result < 0)
            continue;
        gpu->slot = slot;
        lock_byte(gpu->pids_fd, F_SETLK, F_WRLCK, slot, &result);
    }
    unlock_gpu(gpu);
    return gpu->slot != 0;
}

uint32_t gpu_take_pages(struct gpu *gpu, uint32_t wanted, uint32_t *numbers)
{
    struct settings faults;
    uint32_t taken = 0, used = 0, allocation = 0;
    gpu_read_faults(gpu, &faults);
    uint64_t limit = settings_number(&faults, "out_of_memory_after", UINT64_MAX);
    lock_gpu(gpu);
    reap(gpu);
    for (uint32_t i = RESERVED_PAGES; i < gpu->page_count; i++) {
        if (gpu->pages[i].slot != 0)
            used++;
        else if (taken < wanted)
            numbers[taken++] = i;
    }
    if (taken == wanted && ((uint64_t)used + wanted) * PAGE_BYTES <= limit) {
        allocation = ++gpu->last_allocation;
        for (uint32_t i = 0; i < taken; i++)
            gpu->pages[numbers[i]] = (struct page){gpu->slot, allocation};
    }
    unlock_gpu(gpu);
    return allocation;
}

void gpu_free_pages(struct gpu *gpu, uint32_t allocation)
{
    bool scrub = gpu_has_fault(gpu, "scrub_on_free");
    lock_gpu(gpu);
    for (uint32_t i = RESERVED_PAGES; i < gpu->page_count; i++)
        if (gpu->pages[i].slot == gpu->slot && gpu->pages[i].allocation == allocation)
            free_page(gpu, i, scrub);
    unlock_gpu(gpu);
}

uint64_t gpu_total_bytes(const struct gpu *gpu) { return (uint64_t)gpu->page_count * PAGE_BYTES; }

uint64_t gpu_reserved_bytes(void) { return (uint64_t)RESERVED_PAGES * PAGE_BYTES; }

uint64_t gpu_used_bytes(struct gpu *gpu)
{
    uint64_t used = 0;
    lock_gpu(gpu);
    reap(gpu);
    for (uint32_t i = RESERVED_PAGES; i < gpu->page_count; i++)
        used += gpu->pages[i].slot != 0 ? PAGE_BYTES : 0;
    unlock_gpu(gpu);
    return used;
}

int gpu_clients(struct gpu *gpu, struct gpu_client clients[static MAX_SLOTS])
{
    uint64_t bytes[MAX_SLOTS + 1] = {0};
    int result, found = 0;
    lock_gpu(gpu);
    reap(gpu);
    for (uint32_t i = RESERVED_PAGES; i < gpu->page_count; i++)
        bytes[gpu->pages[i].slot] += PAGE_BYTES;
    for (uint32_t slot = 1; slot <= MAX_SLOTS; slot++) {
        if (bytes[slot] == 0)
            continue;
        /* Asked as an open file description, which is nobody's own lock: libcuda in this process counts, too. */
        struct flock lock = lock_byte(gpu->pids_fd, F_OFD_GETLK, F_WRLCK, slot, &result);
        clients[found++] = (struct gpu_client){slot, lock.l_type == F_UNLCK ? 0 : lock.l_pid, bytes[slot]};
    }
    unlock_gpu(gpu);
    return found;
}

void gpu_count_event(const struct gpu *gpu, const char *event)
{
    struct settings faults;
    char awaited[32], after[32];
    settings_read(&faults, gpu->folder_fd, "faults");
    bool named = settings_text(&faults, "strike_at", awaited, sizeof awaited);
    if (!settings_text(&faults, "strike_after", after, sizeof after) || (named && strcmp(awaited, event) != 0))
        return;
    int fd = openat(gpu->folder_fd, "events", O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0 || write(fd, ".", 1) != 1) {
        perror("simgpu: cannot count an event");
        abort();
    }
    close(fd);
}

static uint64_t events_counted(const struct gpu *gpu)
{
    struct stat events;
    return fstatat(gpu->folder_fd, "events", &events, 0) == 0 ? (uint64_t)events.st_size : 0;
}

void gpu_read_faults(const struct gpu *gpu, struct settings *faults)
{
    char after[32];
    settings_read(faults, gpu->folder_fd, "faults");
    if (settings_text(faults, "strike_after", after, sizeof after) &&
        events_counted(gpu) <= settings_number(faults, "strike_after", 0))
        faults->text[0] = '\0';
}

bool gpu_has_fault(const struct gpu *gpu, const char *name)
{
    struct settings faults;
    gpu_read_faults(gpu, &faults);
    return settings_number(&faults, name, 0) != 0;
}

bool gpu_driver_mismatches(void)
{
    for (int i = 0; i < count; i++)
        if (gpu_has_fault(&gpus[i], "driver_mismatch"))
            return true;
    return false;
}
