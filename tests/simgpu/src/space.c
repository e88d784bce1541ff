#define _GNU_SOURCE
#include "space.h"

#include <stdlib.h>
#include <sys/mman.h>

struct block {
    struct gpu *gpu;
    uint32_t allocation, page_count;
    int references;
    struct block *next;
    uint32_t pages[];
};

struct reservation {
    CUdeviceptr address;
    size_t bytes;
    struct reservation *next;
};

struct mapping {
    CUdeviceptr address;
    size_t bytes;
    struct block *block;
    int access;
    struct mapping *next;
};

static struct block *blocks;
static struct reservation *reservations;
static struct mapping *mappings;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

struct block *block_create(struct gpu *gpu, size_t bytes)
{
    uint32_t page_count = bytes / PAGE_BYTES;
    struct block *block = NULL;
    if (page_count <= gpu->page_count)
        block = malloc(sizeof *block + page_count * sizeof block->pages[0]);
    if (block == NULL)
        return NULL;
    *block = (struct block){.gpu = gpu, .page_count = page_count, .references = 1};
    block->allocation = gpu_take_pages(gpu, page_count, block->pages);
    if (block->allocation == 0) {
        free(block);
        return NULL;
    }
    pthread_mutex_lock(&lock);
    block->next = blocks;
    blocks = block;
    pthread_mutex_unlock(&lock);
    return block;
}

static void drop_reference(struct block *block)
{
    if (--block->references > 0)
        return;
    struct block **link = &blocks;
    while (*link != block)
        link = &(*link)->next;
    *link = block->next;
    gpu_free_pages(block->gpu, block->allocation);
    free(block);
}

void block_release(struct block *block)
{
    pthread_mutex_lock(&lock);
    drop_reference(block);
    pthread_mutex_unlock(&lock);
}

struct gpu *block_gpu(const struct block *block) { return block->gpu; }

size_t block_bytes(const struct block *block) { return (size_t)block->page_count * PAGE_BYTES; }

bool block_is_known(const struct block *wanted)
{
    bool known = false;
    pthread_mutex_lock(&lock);
    for (struct block *block = blocks; block != NULL && !known; block = block->next)
        known = block == wanted;
    pthread_mutex_unlock(&lock);
    return known;
}

static bool is_within(CUdeviceptr address, size_t bytes, CUdeviceptr outer, size_t outer_bytes)
{
    return address >= outer && bytes <= outer_bytes && address - outer <= outer_bytes - bytes;
}

static void hide(CUdeviceptr address, size_t bytes)
{
    void *at = (void *)address;
    if (mmap(at, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) == MAP_FAILED)
        abort();
}

static struct reservation *reservation_around(CUdeviceptr address, size_t bytes)
{
    struct reservation *reservation = reservations;
    while (reservation != NULL && !is_within(address, bytes, reservation->address, reservation->bytes))
        reservation = reservation->next;
    return reservation;
}

static struct mapping *mapping_at(CUdeviceptr address)
{
    struct mapping *mapping = mappings;
    while (mapping != NULL && !is_within(address, 1, mapping->address, mapping->bytes))
        mapping = mapping->next;
    return mapping;
}

static bool has_mapping_in(CUdeviceptr address, size_t bytes)
{
    for (struct mapping *mapping = mappings; mapping != NULL; mapping = mapping->next)
        if (mapping->address < address + bytes && address < mapping->address + mapping->bytes)
            return true;
    return false;
}

/* Whether the range consists of whole mappings, without a gap. */
static bool is_whole_mappings(CUdeviceptr address, size_t bytes)
{
    CUdeviceptr end = address + bytes;
    while (address < end) {
        struct mapping *mapping = mapping_at(address);
        if (mapping == NULL || mapping->address != address || mapping->bytes > end - address)
            return false;
        address += mapping->bytes;
    }
    return true;
}

CUresult space_reserve(size_t bytes, size_t alignment, CUdeviceptr *address)
{
    struct reservation *reservation = malloc(sizeof *reservation);
    size_t mapped = bytes + alignment;
    void *found = mapped > bytes ? mmap(NULL, mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
                                 : MAP_FAILED;
    if (found == MAP_FAILED || reservation == NULL) {
        free(reservation);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    CUdeviceptr begin = (CUdeviceptr)found, aligned = (begin + alignment - 1) / alignment * alignment;
    if (aligned > begin)
        munmap((void *)begin, aligned - begin);
    munmap((void *)(aligned + bytes), begin + mapped - (aligned + bytes));
    pthread_mutex_lock(&lock);
    *reservation = (struct reservation){aligned, bytes, reservations};
    reservations = reservation;
    pthread_mutex_unlock(&lock);
    *address = aligned;
    return CUDA_SUCCESS;
}

CUresult space_unreserve(CUdeviceptr address, size_t bytes)
{
    CUresult status = CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&lock);
    struct reservation **link = &reservations;
    while (*link != NULL && ((*link)->address != address || (*link)->bytes != bytes))
        link = &(*link)->next;
    if (*link != NULL && !has_mapping_in(address, bytes)) {
        struct reservation *reservation = *link;
        *link = reservation->next;
        munmap((void *)address, bytes);
        free(reservation);
        status = CUDA_SUCCESS;
    }
    pthread_mutex_unlock(&lock);
    return status;
}

CUresult space_map(CUdeviceptr address, size_t bytes, struct block *block)
{
    CUresult status = CUDA_ERROR_INVALID_VALUE;
    struct mapping *mapping = malloc(sizeof *mapping);
    pthread_mutex_lock(&lock);
    if (mapping != NULL && bytes == block_bytes(block) && reservation_around(address, bytes) != NULL &&
        !has_mapping_in(address, bytes)) {
        *mapping = (struct mapping){address, bytes, block, MEM_ACCESS_NONE, mappings};
        mappings = mapping;
        mapping = NULL;
        block->references++;
        status = CUDA_SUCCESS;
    }
    pthread_mutex_unlock(&lock);
    free(mapping);
    return status;
}

CUresult space_unmap(CUdeviceptr address, size_t bytes)
{
    CUresult status = CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&lock);
    if (bytes > 0 && is_whole_mappings(address, bytes)) {
        hide(address, bytes);
        for (struct mapping **link = &mappings; *link != NULL;) {
            struct mapping *mapping = *link;
            if (!is_within(mapping->address, mapping->bytes, address, bytes)) {
                link = &mapping->next;
                continue;
            }
            *link = mapping->next;
            drop_reference(mapping->block);
            free(mapping);
        }
        status = CUDA_SUCCESS;
    }
    pthread_mutex_unlock(&lock);
    return status;
}

/* Map a block's pages, one mmap for each run of neighbours. */
static void show(const struct mapping *mapping, int protection)
{
    const struct block *block = mapping->block;
    for (uint32_t first = 0, next; first < block->page_count; first = next) {
        for (next = first + 1; next < block->page_count && block->pages[next] == block->pages[next - 1] + 1; next++)
            ;
        void *at = (void *)(mapping->address + (CUdeviceptr)first * PAGE_BYTES);
        off_t offset = (off_t)block->pages[first] * PAGE_BYTES;
        if (mmap(at, (size_t)(next - first) * PAGE_BYTES, protection, MAP_SHARED | MAP_FIXED, block->gpu->memory_fd,
                 offset) == MAP_FAILED)
            abort();
    }
}

CUresult space_set_access(CUdeviceptr address, size_t bytes, int access)
{
    CUresult status = CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&lock);
    if (bytes > 0 && is_whole_mappings(address, bytes)) {
        for (struct mapping *mapping = mappings; mapping != NULL; mapping = mapping->next) {
            if (!is_within(mapping->address, mapping->bytes, address, bytes))
                continue;
            mapping->access = access;
            if (access == MEM_ACCESS_NONE)
                hide(mapping->address, mapping->bytes);
            else
                show(mapping, access == MEM_ACCESS_READ ? PROT_READ : PROT_READ | PROT_WRITE);
        }
        status = CUDA_SUCCESS;
    }
    pthread_mutex_unlock(&lock);
    return status;
}

CUresult space_access(CUdeviceptr address, int *access)
{
    pthread_mutex_lock(&lock);
    struct mapping *mapping = mapping_at(address);
    if (mapping != NULL)
        *access = mapping->access;
    pthread_mutex_unlock(&lock);
    return mapping != NULL ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

bool space_is_device(CUdeviceptr address)
{
    pthread_mutex_lock(&lock);
    bool is_device = reservation_around(address, 1) != NULL;
    pthread_mutex_unlock(&lock);
    return is_device;
}

bool space_allows(CUdeviceptr address, size_t bytes, bool write)
{
    bool allowed = address + bytes >= address;
    int needed = write ? MEM_ACCESS_READ_WRITE : MEM_ACCESS_READ;
    CUdeviceptr end = address + bytes;
    pthread_mutex_lock(&lock);
    while (allowed && address < end) {
        struct mapping *mapping = mapping_at(address);
        allowed = mapping != NULL && (mapping->access & needed) == needed;
        if (allowed)
            address = mapping->address + mapping->bytes;
    }
    pthread_mutex_unlock(&lock);
    return allowed;
}

bool space_mapping(CUdeviceptr address, CUdeviceptr *begin, size_t *bytes, struct block **block)
{
    pthread_mutex_lock(&lock);
    struct mapping *mapping = mapping_at(address);
    if (mapping != NULL) {
        *begin = mapping->address;
        *bytes = mapping->bytes;
        *block = mapping->block;
    }
    pthread_mutex_unlock(&lock);
    return mapping != NULL;
}

bool space_locate(const struct gpu *gpu, uint64_t offset, CUdeviceptr begin, size_t bytes, CUdeviceptr *address)
{
    bool found = false;
    pthread_mutex_lock(&lock);
    for (struct mapping *mapping = mappings; mapping != NULL && !found; mapping = mapping->next) {
        const struct block *block = mapping->block;
        for (uint32_t i = 0; block->gpu == gpu && i < block->page_count && !found; i++) {
            *address = mapping->address + (CUdeviceptr)i * PAGE_BYTES + offset % PAGE_BYTES;
            found = block->pages[i] == offset / PAGE_BYTES && is_within(*address, 1, begin, bytes);
        }
    }
    pthread_mutex_unlock(&lock);
    return found;
}
