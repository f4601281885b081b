/* Crossings that are a system call and little else, and two that need none, for comparison. */

#include "crossings.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { STEPS = 1000 };

/* Multiplications of which each needs the one before (the generator of Knuth's MMIX). */
static uint64_t multiplications(void *context, uint64_t times) {
    uint64_t value = 1, began = nanoseconds();
    (void)context;
    for (uint64_t i = 0; i < times; i++)
        for (int step = 0; step < STEPS; step++) {
            value = value * 6364136223846793005u + 1442695040888963407u;
            __asm__ volatile("" : "+r"(value));
        }
    return nanoseconds() - began;
}
static void none(void) { measure(multiplications, NULL, 1); }

/* As the C library does it: without a system call, where the kernel's vDSO can read the clock (vdso(7)). */
static uint64_t readings(void *context, uint64_t times) {
    struct timespec now;
    uint64_t began = nanoseconds();
    (void)context;
    for (uint64_t i = 0; i < times; i++)
        clock_gettime(CLOCK_MONOTONIC, &now);
    return nanoseconds() - began;
}
static void clock_by_vdso(void) { measure(readings, NULL, 1); }

static uint64_t calls_of_clock(void *context, uint64_t times) {
    struct timespec now;
    uint64_t began = nanoseconds();
    (void)context;
    for (uint64_t i = 0; i < times; i++)
        syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
    return nanoseconds() - began;
}
static void clock_by_call(void) {
    struct timespec now;
    if (syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now) < 0)
        absent("clock_gettime", errno);
    measure(calls_of_clock, NULL, 1);
}

/* By syscall(2): no library may remember the answer. */
static uint64_t calls_of_getpid(void *context, uint64_t times) {
    uint64_t began = nanoseconds();
    (void)context;
    for (uint64_t i = 0; i < times; i++)
        syscall(SYS_getpid);
    return nanoseconds() - began;
}
static void get_pid(void) { measure(calls_of_getpid, NULL, 1); }

static uint64_t reads_of_a_byte(void *context, uint64_t times) {
    char byte;
    uint64_t began = nanoseconds();
    for (uint64_t i = 0; i < times; i++)
        take(*(int *)context, &byte);
    return nanoseconds() - began;
}
static void read_a_byte(void) {
    int fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        absent("open /dev/zero", errno);
    measure(reads_of_a_byte, &fd, 1);
}

/* A file of the image, the same in every instance of it; of an image that has none, lab's own program. */
static const char *some_file(void) {
    static const char *const candidates[] = {"/etc/passwd", "/etc/hosts", "/.lab/inside"};
    struct stat found;
    for (size_t i = 0; i < sizeof candidates / sizeof *candidates; i++)
        if (stat(candidates[i], &found) == 0 && S_ISREG(found.st_mode)) {
            tell("of", candidates[i]);
            return candidates[i];
        }
    absent("no file to look at", errno);
}

static uint64_t stats(void *context, uint64_t times) {
    struct stat found;
    uint64_t began = nanoseconds();
    for (uint64_t i = 0; i < times; i++)
        if (stat(context, &found) < 0)
            absent("stat", errno);
    return nanoseconds() - began;
}
static void stat_a_file(void) { measure(stats, (void *)some_file(), 1); }

static uint64_t opens(void *context, uint64_t times) {
    uint64_t began = nanoseconds();
    for (uint64_t i = 0; i < times; i++) {
        int fd = open(context, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || close(fd) < 0)
            absent("open", errno);
    }
    return nanoseconds() - began;
}
static void open_a_file(void) { measure(opens, (void *)some_file(), 1); }

const struct named call_crossings[] = {
    {"none", none},        {"clock", clock_by_vdso}, {"clock_call", clock_by_call}, {"getpid", get_pid},
    {"read", read_a_byte}, {"stat", stat_a_file},    {"open", open_a_file},         {NULL, NULL},
};
