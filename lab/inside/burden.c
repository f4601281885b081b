/* Work and pressure of a known size: what a metric times, and what a limit must hold against. */

#include "inside.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MOST_FORKS = 8192, MOST_SPINNERS = 64, MOST_FILES = 1 << 20, PATIENCE_SECONDS = 120 };

/* compute ROUNDS: the fixed computation. Each round chains 64 integer steps (xorshift64, Marsaglia 2003), 64
 * floating-point steps and one SHA-256 over the state, so that none can be skipped. No allocation, no system
 * call, the same bits from the same binary everywhere; prints its checksum alone: the caller's clock counts. */
int compute(int count, char **arguments) {
    if (count != 2)
        fail("compute: expected ROUNDS");
    unsigned long long rounds = number(arguments[1]);
    uint64_t integer = 0x9e3779b97f4a7c15;
    double real = 0.5;
    char digest[65] = "";
    for (unsigned long long round = 0; round < rounds; round++) {
        for (int step = 0; step < 64; step++) {
            integer ^= integer << 13, integer ^= integer >> 7, integer ^= integer << 17;
            real = sqrt(real * (1.0 + (double)(integer >> 40) * 0x1p-24)) / (1.0 + real * 0.25);
        }
        struct sha256 hash;
        sha256_start(&hash);
        sha256_add(&hash, &integer, sizeof integer);
        sha256_add(&hash, &real, sizeof real);
        sha256_add(&hash, digest, sizeof digest);
        sha256_finish(&hash, digest);
        integer ^= (uint64_t)(unsigned char)digest[0] << 32 | (unsigned char)digest[63];
    }
    printf("{\"rounds\": %llu, \"checksum\": \"%s\"}\n", rounds, digest);
    return 0;
}

/* allocate BYTES: a child touches so much memory page by page; says how far it got, even when it was killed. */
int allocate(int count, char **arguments) {
    if (count != 2)
        fail("allocate: expected BYTES");
    size_t asked = (size_t)number(arguments[1]), page = (size_t)sysconf(_SC_PAGESIZE);
    volatile size_t *touched = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (touched == MAP_FAILED)
        fail("allocate: mmap: %s", strerror(errno));
    pid_t child = fork();
    if (child < 0)
        fail("allocate: fork: %s", strerror(errno));
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        alarm(PATIENCE_SECONDS);
        int fd = open("/proc/self/oom_score_adj", O_WRONLY); /* proc(5): be the one to die, not the application */
        if (fd < 0 || write(fd, "1000", 4) != 4)
            _exit(2);
        char *memory =
            mmap(NULL, asked, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED)
            _exit(1);
        madvise(memory, asked, MADV_NOHUGEPAGE); /* touch what is asked, not 2 MiB at a time */
        for (size_t offset = 0; offset < asked; offset += page) {
            memory[offset] = 1;
            *touched = offset + page;
        }
        _exit(0);
    }
    int status;
    while (waitpid(child, &status, 0) < 0)
        ;
    const char *fate = WIFSIGNALED(status) ? "killed" : WEXITSTATUS(status) == 0 ? "done"
                                                    : WEXITSTATUS(status) == 1   ? "refused"
                                                                                 : "unprotected";
    printf("{\"asked\": %zu, \"touched\": %zu, \"fate\": \"%s\", \"signal\": %d}\n", asked, (size_t)*touched, fate,
           WIFSIGNALED(status) ? WTERMSIG(status) : 0);
    return 0;
}

/* fork N: how many children, all alive at once, before fork(2) refuses. They wait and are reaped. */
int fork_many(int count, char **arguments) {
    static pid_t children[MOST_FORKS];
    unsigned long long asked = count == 2 ? number(arguments[1]) : MOST_FORKS + 1ULL;
    if (asked > MOST_FORKS)
        fail("fork: expected N, at most %d", MOST_FORKS);
    size_t made = 0;
    int error = 0;
    for (; made < asked; made++) {
        pid_t child = fork();
        if (child < 0) {
            error = errno;
            break;
        }
        if (child == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            alarm(PATIENCE_SECONDS);
            pause();
            _exit(0);
        }
        children[made] = child;
    }
    for (size_t i = 0; i < made; i++)
        kill(children[i], SIGKILL);
    for (size_t i = 0; i < made; i++)
        waitpid(children[i], NULL, 0);
    printf("{\"asked\": %llu, \"made\": %zu, ", asked, made);
    errno = error;
    print_outcome(error ? -1 : 0);
    printf("}\n");
    return 0;
}

/* files N: how many descriptors this process may have before dup(2) refuses. */
int open_many(int count, char **arguments) {
    unsigned long long asked = count == 2 ? number(arguments[1]) : MOST_FILES + 1ULL, made = 0;
    if (asked > MOST_FILES)
        fail("files: expected N, at most %d", MOST_FILES);
    errno = 0;
    while (made < asked && dup(STDIN_FILENO) >= 0)
        made++;
    int error = errno;
    printf("{\"asked\": %llu, \"made\": %llu, ", asked, made);
    errno = error;
    print_outcome(error ? -1 : 0);
    printf("}\n");
    return 0;
}

static double cpu_seconds(int who) {
    struct rusage usage;
    getrusage(who, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           1e-6 * (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

/* spin SECONDS PROCESSES: keep so many processors busy; says how much CPU time was obtained. */
int spin(int count, char **arguments) {
    if (count != 3)
        fail("spin: expected SECONDS PROCESSES");
    char *rest;
    double seconds = strtod(arguments[1], &rest);
    unsigned long long processes = number(arguments[2]);
    if (*rest || !(seconds > 0 && seconds <= 30) || processes < 1 || processes > MOST_SPINNERS)
        fail("spin: at most 30 seconds and %d processes", MOST_SPINNERS);
    double start = monotonic_seconds();
    for (unsigned long long i = 0; i < processes; i++) {
        pid_t child = fork();
        if (child < 0)
            fail("spin: fork: %s", strerror(errno));
        if (child == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            while (monotonic_seconds() < start + seconds)
                ;
            _exit(0);
        }
    }
    while (wait(NULL) > 0)
        ;
    printf("{\"cpu_seconds\": %.6f, \"wall_seconds\": %.6f, \"processes\": %llu}\n", cpu_seconds(RUSAGE_CHILDREN),
           monotonic_seconds() - start, processes);
    return 0;
}
