/* An application whose cost is known by construction: what a metric finds, it must be told by these words.
 *
 *   known [WORD=NUMBER …]     serve HTTP on port 8000
 *   known job [WORD=NUMBER …] do delay, touch and burn, and end
 *
 *   delay_ms        sleep so long before listening
 *   touch_mib       write a byte to each page of so much memory, and keep it
 *   burn_ms         use so much processor time before listening, by the process's own clock
 *   idle_burn_ms    use so much after each 90 ms without a request
 *   answer_ms       answer so long after a request's last byte
 *   answer_burn_ms  use so much processor time within that
 *   linger_ms       on SIGTERM, end so much later
 *
 * Prints how long it took itself to get as far as listening (or to do its job), and its processor time. */

#include <arpa/inet.h>
#include <err.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { PORT = 8000, QUIET_MS = 90, BACKLOG = 16 };
static const char ANSWER[] =
    "HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: keep-alive\r\n\r\nknown\n"; /* ab wants to hear the latter */

static double delay_ms, touch_mib, burn_ms, idle_burn_ms, answer_ms, answer_burn_ms, linger_ms;
static const struct {
    const char *name;
    double *value;
} words[] = {
    {"delay_ms", &delay_ms},         {"touch_mib", &touch_mib}, {"burn_ms", &burn_ms},
    {"idle_burn_ms", &idle_burn_ms}, {"answer_ms", &answer_ms}, {"answer_burn_ms", &answer_burn_ms},
    {"linger_ms", &linger_ms},
};

static double seconds(clockid_t clock) {
    struct timespec at;
    clock_gettime(clock, &at);
    return (double)at.tv_sec + 1e-9 * (double)at.tv_nsec;
}

static void sleep_until(double monotonic) {
    struct timespec at = {(time_t)monotonic, (long)((monotonic - (double)(time_t)monotonic) * 1e9)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL) != 0)
        ;
}

static void burn(double milliseconds) {
    double until = seconds(CLOCK_PROCESS_CPUTIME_ID) + milliseconds / 1e3;
    while (milliseconds > 0 && seconds(CLOCK_PROCESS_CPUTIME_ID) < until)
        ;
}

static void touch(double mebibytes) {
    size_t bytes = (size_t)mebibytes << 20, page = (size_t)sysconf(_SC_PAGESIZE);
    if (bytes == 0)
        return;
    char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        err(1, "mmap");
    madvise(memory, bytes, MADV_NOHUGEPAGE); /* what is touched, not 2 MiB at a time */
    for (size_t offset = 0; offset < bytes; offset += page)
        memory[offset] = 1;
}

static void end(int number) {
    (void)number;
    sleep_until(seconds(CLOCK_MONOTONIC) + linger_ms / 1e3);
    _exit(0);
}

static void serve_one(int client) {
    char text[4096];
    struct pollfd wait = {.fd = client, .events = POLLIN};
    for (size_t have = 0;;) {
        if (poll(&wait, 1, QUIET_MS) == 0) {
            burn(idle_burn_ms);
            continue;
        }
        ssize_t got = read(client, text + have, sizeof text - 1 - have);
        if (got <= 0)
            return;
        have += (size_t)got;
        text[have] = 0;
        if (strstr(text, "\r\n\r\n") == NULL)
            continue;
        double due = seconds(CLOCK_MONOTONIC) + answer_ms / 1e3;
        burn(answer_burn_ms);
        sleep_until(due);
        if (write(client, ANSWER, sizeof ANSWER - 1) < 0)
            return;
        have = 0;
    }
}

int main(int count, char **arguments) {
    double began = seconds(CLOCK_MONOTONIC);
    int job = count > 1 && strcmp(arguments[1], "job") == 0;
    for (int i = 1 + job; i < count; i++) {
        char *value = strchr(arguments[i], '=');
        int known = 0;
        for (size_t w = 0; value && w < sizeof words / sizeof *words; w++)
            if (strncmp(words[w].name, arguments[i], (size_t)(value - arguments[i])) == 0)
                *words[w].value = atof(value + 1), known = 1;
        if (!known)
            errx(2, "unknown: %s", arguments[i]);
    }
    signal(SIGPIPE, SIG_IGN);
    signal(SIGTERM, end);
    int server = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(PORT)};
    setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (!job && bind(server, (struct sockaddr *)&here, sizeof here) < 0)
        err(1, "bind");
    sleep_until(seconds(CLOCK_MONOTONIC) + delay_ms / 1e3);
    touch(touch_mib);
    burn(burn_ms);
    if (!job && listen(server, BACKLOG) < 0)
        err(1, "listen");
    printf("wall_seconds %.6f cpu_seconds %.6f\n", seconds(CLOCK_MONOTONIC) - began,
           seconds(CLOCK_PROCESS_CPUTIME_ID));
    fflush(stdout);
    while (!job) {
        struct pollfd wait = {.fd = server, .events = POLLIN};
        if (poll(&wait, 1, QUIET_MS) == 0) {
            burn(idle_burn_ms);
            continue;
        }
        int client = accept(server, NULL, NULL);
        if (client < 0)
            continue;
        setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        serve_one(client);
        close(client);
    }
    return 0;
}
