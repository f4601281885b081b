/* Crossings into the kernel's memory management: a mapping, a page that is new, a page that was there. */

#include "crossings.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGES = 512 };

static size_t page(void) { return (size_t)sysconf(_SC_PAGESIZE); }

static uint64_t mappings(void *context, uint64_t times) {
    size_t size = page();
    uint64_t began = nanoseconds();
    (void)context;
    for (uint64_t i = 0; i < times; i++) {
        void *place = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (place == MAP_FAILED || munmap(place, size) < 0)
            absent("mmap", errno);
    }
    return nanoseconds() - began;
}
static void map_and_unmap(void) { measure(mappings, NULL, 1); }

static uint64_t touched(volatile char *memory, size_t size) {
    uint64_t began = nanoseconds();
    for (size_t at = 0; at < size * PAGES; at += size)
        memory[at] = 1;
    return nanoseconds() - began;
}

/* Pages of a mapping that is new in every round, each of 4 KiB: the kernel finds one, clears it and maps it. Neither
 * the mapping nor its end is timed. */
static uint64_t first_touches(void *context, uint64_t times) {
    size_t size = page();
    uint64_t spent = 0;
    (void)context;
    for (uint64_t i = 0; i < times; i++) {
        char *memory = mmap(NULL, size * PAGES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED)
            absent("mmap", errno);
        madvise(memory, size * PAGES, MADV_NOHUGEPAGE); /* EINVAL where there are none */
        spent += touched(memory, size);
        munmap(memory, size * PAGES);
    }
    return spent;
}
static void touch_first(void) { measure(first_touches, NULL, PAGES); }

/* Pages of shared memory that are there and not mapped any more (madvise(2), MADV_DONTNEED): a write finds and maps
 * one page each, and none is made. */
static uint64_t minor_faults(void *context, uint64_t times) {
    size_t size = page();
    uint64_t spent = 0;
    for (uint64_t i = 0; i < times; i++) {
        if (madvise(context, size * PAGES, MADV_DONTNEED) < 0)
            absent("madvise", errno);
        spent += touched(context, size);
    }
    return spent;
}
static void fault_minor(void) {
    size_t size = page();
    char *memory = mmap(NULL, size * PAGES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        absent("mmap", errno);
    madvise(memory, size * PAGES, MADV_NOHUGEPAGE);
    touched(memory, size);
    measure(minor_faults, memory, PAGES);
}

const struct named memory_crossings[] = {
    {"mmap", map_and_unmap}, {"first_touch", touch_first}, {"minor_fault", fault_minor}, {NULL, NULL},
};
