/* crossings [NAME…]: how long it takes to cross from a program into what serves it, by this machine's own clock.
 *
 * Each crossing has a process of its own, with a deadline: one that is refused, killed or hangs is said to be absent,
 * and the others go on. It is done in batches, each long enough that reading the clock and the clock's step are lost
 * in it; a batch has the mean of its operations, and what is told is the median of the batches, in nanoseconds.
 *
 * The clock is CLOCK_MONOTONIC as the instance has it: in a guest the guest's. How long all of it took by that clock
 * is told too, so that the host can hold it against its own.
 */

#include "crossings.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { DEADLINE_SECONDS = 20, LEAST_BATCHES = 15, FEWEST_BATCHES = 3, MOST_BATCHES = 512, MOST_ANSWER = 4096 };
enum { LOOKS = 1000, MOST_GROWTH = 16 };

/* In nanoseconds. A batch is long beside the clock, and short beside the milliseconds for which a busy host gives a
 * processor to somebody else: most batches are then not interrupted, and so their median is not. */
static const uint64_t BATCH = 200000, ENOUGH = 60000000, PATIENCE = 1000000000;
static const uint64_t READINGS = 200; /* of the clock: a batch takes as long as so many of them at the least */

uint64_t nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void tell(const char *name, const char *value) {
    printf("\"%s\": ", name);
    print_string(value, strlen(value));
    fputs(", ", stdout);
}

void absent(const char *what, int error) {
    const char *name = error ? strerrorname_np(error) : NULL;
    tidy();
    tell("absent", what);
    printf("\"errno\": %d, \"name\": \"%s\"", error, name ? name : "");
    fflush(stdout);
    _exit(0);
}

static uint64_t clock_cost(void) {
    uint64_t began = nanoseconds(), now = began;
    for (int looks = 0; looks < LOOKS; looks++)
        now = nanoseconds();
    return (now - began) / LOOKS;
}

static int compare(const void *one, const void *other) {
    double a = *(const double *)one, b = *(const double *)other;
    return (a > b) - (a < b);
}

/* First one round alone: what it costs when nothing is warm. Then more of them until a batch is long enough; and then
 * batches, until there are enough of them. */
void measure(rounds *run, void *context, double operations) {
    static double batches[MOST_BATCHES];
    uint64_t least = READINGS * clock_cost(), count = 1, spent = run(context, count), total = spent;
    double first = (double)spent / operations;
    if (least < BATCH)
        least = BATCH;
    while (spent < least && total < PATIENCE) {
        uint64_t wanted = spent ? count * least / spent + 1 : count * MOST_GROWTH;
        count = wanted > count * MOST_GROWTH ? count * MOST_GROWTH : wanted > count ? wanted : count + 1;
        spent = run(context, count);
        total += spent;
    }
    int made = 0;
    for (uint64_t used = 0; made < MOST_BATCHES; made++) {
        if (made >= LEAST_BATCHES ? used >= ENOUGH : made >= FEWEST_BATCHES && used >= PATIENCE)
            break;
        spent = run(context, count);
        used += spent;
        batches[made] = (double)spent / (double)count / operations;
    }
    qsort(batches, (size_t)made, sizeof *batches, compare);
    printf("\"median\": %.3f, \"least\": %.3f, \"quarter\": %.3f, \"three_quarters\": %.3f, \"first\": %.3f, "
           "\"batches\": %d, \"per_batch\": %.0f",
           made % 2 ? batches[made / 2] : (batches[made / 2 - 1] + batches[made / 2]) / 2, batches[0],
           batches[made / 4], batches[made - 1 - made / 4], first, made, (double)count * operations);
}

void pin_to(int processor) {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(processor, &one);
    if (sched_setaffinity(0, sizeof one, &one) < 0)
        absent("sched_setaffinity", errno);
}

int pin_to_one(void) {
    int here = sched_getcpu();
    if (here < 0)
        absent("sched_getcpu", errno);
    pin_to(here);
    return here;
}

int another_processor(int than) {
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) < 0)
        absent("sched_getaffinity", errno);
    for (int each = 0; each < CPU_SETSIZE; each++)
        if (each != than && CPU_ISSET(each, &allowed))
            return each;
    return -1;
}

pid_t born(void) {
    fflush(stdout);
    pid_t parent = getpid(), child = fork();
    if (child < 0)
        absent("fork", errno);
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(1);
    }
    return child;
}

void pass(int fd, const void *byte) {
    if (write(fd, byte, 1) != 1)
        absent("write", errno);
}

void take(int fd, void *byte) {
    ssize_t size = read(fd, byte, 1);
    if (size != 1)
        absent("read", size < 0 ? errno : EPIPE);
}

static const struct named *const groups[] = {call_crossings, memory_crossings, task_crossings, network_crossings,
                                             file_crossings};

static int is_wanted(const char *name, int count, char **names) {
    for (int i = 0; i < count; i++)
        if (strcmp(names[i], name) == 0)
            return 1;
    return count == 0;
}

/* Its answer is an object of JSON, whatever becomes of it. */
static void run_one(const struct named *one) {
    static char answer[MOST_ANSWER];
    int output[2], status = 0;
    if (pipe2(output, O_CLOEXEC) < 0)
        fail("crossings: pipe: %s", strerror(errno));
    fflush(stdout);
    pid_t child = fork();
    if (child < 0)
        fail("crossings: fork: %s", strerror(errno));
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        setpgid(0, 0);
        signal(SIGPIPE, SIG_IGN);
        alarm(DEADLINE_SECONDS);
        dup2(output[1], STDOUT_FILENO);
        one->run();
        fflush(stdout);
        _exit(0);
    }
    close(output[1]);
    size_t filled = 0;
    for (ssize_t size; filled < sizeof answer && (size = read(output[0], answer + filled, sizeof answer - filled)) > 0;)
        filled += (size_t)size;
    close(output[0]);
    waitpid(child, &status, 0);
    kill(-child, SIGKILL); /* what it made and could not end */
    printf("\"%s\": {", one->name);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0 && filled > 0)
        fwrite(answer, 1, filled, stdout);
    else if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
        printf("\"absent\": \"it did not end in %d s\", \"errno\": 0, \"name\": \"\"", DEADLINE_SECONDS);
    else if (WIFSIGNALED(status))
        printf("\"absent\": \"it was killed by signal %d\", \"errno\": 0, \"name\": \"\"", WTERMSIG(status));
    else
        printf("\"absent\": \"it ended with exit code %d\", \"errno\": 0, \"name\": \"\"", WEXITSTATUS(status));
    putchar('}');
}

/* The clock itself: its least step that was seen, and who keeps it (the kernel's name for it). */
static void describe_clock(void) {
    char source[64] = "";
    uint64_t step = UINT64_MAX;
    for (int looks = 0; looks < LOOKS; looks++) {
        uint64_t before = nanoseconds(), after = nanoseconds();
        if (after > before && after - before < step)
            step = after - before;
    }
    int fd = open("/sys/devices/system/clocksource/clocksource0/current_clocksource", O_RDONLY | O_CLOEXEC);
    ssize_t size = fd >= 0 ? read(fd, source, sizeof source) : 0;
    if (fd >= 0)
        close(fd);
    printf("\"step\": %llu, \"cost\": %llu, \"source\": ", step == UINT64_MAX ? 0ull : (unsigned long long)step,
           (unsigned long long)clock_cost());
    print_string(source, size > 0 ? strcspn(source, "\n") : 0);
}

int crossings(int count, char **arguments) {
    int known = 0;
    uint64_t began = nanoseconds();
    fputs("{\"clock\": {", stdout);
    describe_clock();
    fputs("}, \"crossings\": {", stdout);
    for (size_t group = 0; group < sizeof groups / sizeof *groups; group++)
        for (const struct named *each = groups[group]; each->name; each++)
            if (is_wanted(each->name, count - 1, arguments + 1)) {
                if (known++)
                    fputs(", ", stdout);
                run_one(each);
            }
    if (count > 1 && known != count - 1)
        fail("crossings: one of these is none");
    printf("}, \"seconds\": %.6f}\n", (double)(nanoseconds() - began) * 1e-9);
    return 0;
}
