/* Which system calls get past whatever filters them. For lab/studies/surface/reach.py, which knows what they are.
 *
 * Each is made in a process of its own, with arguments that no call accepts: what gets through fails inside the
 * kernel. Those that would do something even so are left out by who asks.
 */

#include "inside.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BLOCKED_MICROSECONDS = 200000, UNTOUCHED = -1 };

static int is_listed(const char *list, unsigned long number) {
    for (const char *at = list; *at; at += strcspn(at, ","), at += *at == ',')
        if (strtoul(at, NULL, 10) == number && *at != ',')
            return 1;
    return 0;
}

/* The child tells its result through shared memory: a filter may refuse any call that would carry it. */
static void make(long number, long argument, volatile int *outcome) {
    const struct rlimit no_core = {0, 0};
    const struct itimerval soon = {.it_value = {.tv_usec = BLOCKED_MICROSECONDS}};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setrlimit(RLIMIT_CORE, &no_core);
    signal(SIGALRM, SIG_DFL);
    setitimer(ITIMER_REAL, &soon, NULL);
    errno = 0;
    long result = syscall(number, argument, argument, argument, argument, argument, argument);
    *outcome = result == -1 ? errno : 0;
    _exit(0);
}

/* surface COUNT SKIPPED ZEROED: calls 0 … COUNT-1 but for those SKIPPED, each with all arguments -1, or 0 for those
 * ZEROED; the lists are numbers with commas. Prints an outcome each: 0 success, an errno, minus the signal that killed
 * it (SIGALRM: it got through, and waited), null where it was left out. */
int print_surface(int count, char **arguments) {
    if (count != 4)
        fail("surface: expected COUNT SKIPPED ZEROED");
    volatile int *outcome = mmap(NULL, sizeof *outcome, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (outcome == MAP_FAILED)
        fail("surface: mmap: %s", strerror(errno));
    unsigned long total = number(arguments[1]);
    printf("{\"outcomes\": [");
    for (unsigned long call = 0; call < total; call++) {
        printf(call ? ", " : "");
        if (is_listed(arguments[2], call)) {
            printf("null");
            continue;
        }
        *outcome = UNTOUCHED;
        pid_t child = fork();
        if (child < 0)
            fail("surface: fork: %s", strerror(errno));
        if (child == 0)
            make((long)call, is_listed(arguments[3], call) ? 0 : -1, outcome);
        int status = 0;
        while (waitpid(child, &status, 0) < 0 && errno == EINTR)
            ;
        if (WIFSIGNALED(status))
            printf("%d", -WTERMSIG(status));
        else if (*outcome == UNTOUCHED)
            printf("null"); /* it ended by another way than returning */
        else
            printf("%d", *outcome);
    }
    printf("]}\n");
    return 0;
}
