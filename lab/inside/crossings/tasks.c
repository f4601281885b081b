/* Crossings to another thread or process. All parties share one processor, so that a machine with one is asked the same
 * as one with many; in "wake" alone they have two, and the kernel of a guest has to ask its host for each waking. */

#include "crossings.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void *nothing(void *given) { return given; }

static uint64_t threads(void *context, uint64_t times) {
    uint64_t began = nanoseconds();
    (void)context;
    for (uint64_t i = 0; i < times; i++) {
        pthread_t made;
        int error = pthread_create(&made, NULL, nothing, NULL);
        if (error || (error = pthread_join(made, NULL)))
            absent("pthread_create", error);
    }
    return nanoseconds() - began;
}
static void make_threads(void) {
    pin_to_one();
    measure(threads, NULL, 1);
}

static void reap(pid_t child) {
    int status = 0;
    if (child < 0)
        absent("fork", errno);
    if (waitpid(child, &status, 0) != child)
        absent("waitpid", errno);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        absent("the child failed", 0);
}

static uint64_t forks(void *context, uint64_t times) {
    uint64_t began = nanoseconds();
    (void)context;
    for (uint64_t i = 0; i < times; i++) {
        pid_t child = fork();
        if (child == 0)
            _exit(0);
        reap(child);
    }
    return nanoseconds() - began;
}
static void make_processes(void) {
    pin_to_one();
    measure(forks, NULL, 1);
}

/* This program once more, which says its version to nobody. */
static uint64_t executions(void *context, uint64_t times) {
    char *words[] = {"inside", "version", NULL};
    uint64_t began = nanoseconds();
    for (uint64_t i = 0; i < times; i++) {
        pid_t child = fork();
        if (child == 0) {
            dup2(*(int *)context, STDOUT_FILENO);
            execv("/proc/self/exe", words);
            execv("/.lab/inside", words);
            _exit(127);
        }
        reap(child);
    }
    return nanoseconds() - began;
}
static void execute_programs(void) {
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (null < 0)
        absent("open /dev/null", errno);
    pin_to_one();
    measure(executions, &null, 1);
}

/* Two pipes, and a process that sends back what it gets. */
struct pair {
    int there[2], back[2], own[2];
};

static void connect_pair(struct pair *pair) {
    if (pipe2(pair->there, O_CLOEXEC) < 0 || pipe2(pair->back, O_CLOEXEC) < 0 || pipe2(pair->own, O_CLOEXEC) < 0)
        absent("pipe", errno);
    pin_to_one();
    if (born() == 0) {
        char byte;
        while (read(pair->there[0], &byte, 1) == 1 && write(pair->back[1], &byte, 1) == 1)
            ;
        _exit(0);
    }
}

static uint64_t round_trips(void *context, uint64_t times) {
    struct pair *pair = context;
    char byte = 0;
    uint64_t began = nanoseconds();
    for (uint64_t i = 0; i < times; i++) {
        pass(pair->there[1], &byte);
        take(pair->back[0], &byte);
    }
    return nanoseconds() - began;
}
static void through_pipes(void) {
    struct pair pair;
    connect_pair(&pair);
    measure(round_trips, &pair, 1);
}

/* What is left of a round trip, of which there are two switches, when what the same calls take a process alone is taken
 * from it: as lat_ctx of lmbench has it (McVoy and Staelin, USENIX 1996). */
static uint64_t switches(void *context, uint64_t times) {
    struct pair *pair = context;
    char byte = 0;
    uint64_t both = round_trips(context, times), began = nanoseconds();
    for (uint64_t i = 0; i < 2 * times; i++) {
        pass(pair->own[1], &byte);
        take(pair->own[0], &byte);
    }
    uint64_t alone = nanoseconds() - began;
    return both > alone ? both - alone : 0;
}
static void switch_context(void) {
    struct pair pair;
    connect_pair(&pair);
    measure(switches, &pair, 2);
}

/* Two threads that hand one another a word, each sleeping until it has it (futex(2)). */
struct handover {
    _Atomic uint32_t turn; /* 0: ours, 1: the other's */
    int processor;         /* the other's; -1 to stay where it was made */
};

static void wait_for_turn(struct handover *shared, uint32_t mine) {
    while (atomic_load(&shared->turn) != mine)
        if (syscall(SYS_futex, &shared->turn, FUTEX_WAIT_PRIVATE, !mine, NULL, NULL, 0) < 0 && errno != EAGAIN &&
            errno != EINTR)
            absent("futex", errno);
}

static void give_turn(struct handover *shared, uint32_t whose) {
    atomic_store(&shared->turn, whose);
    if (syscall(SYS_futex, &shared->turn, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0) < 0)
        absent("futex", errno);
}

static void *answer(void *given) {
    struct handover *shared = given;
    if (shared->processor >= 0)
        pin_to(shared->processor);
    for (;;) {
        wait_for_turn(shared, 1);
        give_turn(shared, 0);
    }
    return NULL;
}

static uint64_t handovers(void *context, uint64_t times) {
    uint64_t began = nanoseconds();
    for (uint64_t i = 0; i < times; i++) {
        give_turn(context, 1);
        wait_for_turn(context, 0);
    }
    return nanoseconds() - began;
}

static void hand_over(int processor) {
    static struct handover shared;
    pthread_t other;
    shared.processor = processor;
    int error = pthread_create(&other, NULL, answer, &shared);
    if (error)
        absent("pthread_create", error);
    measure(handovers, &shared, 1);
}

static void on_one_processor(void) {
    pin_to_one();
    hand_over(-1);
}

static void on_two_processors(void) {
    int here = sched_getcpu(), other = another_processor(here);
    if (other < 0)
        absent("it has one processor", 0);
    pin_to(here);
    hand_over(other);
}

const struct named task_crossings[] = {
    {"thread", make_threads},   {"fork", make_processes}, {"exec", execute_programs}, {"pipe", through_pipes},
    {"switch", switch_context}, {"futex", on_one_processor}, {"wake", on_two_processors}, {NULL, NULL},
};
