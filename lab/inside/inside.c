/* lab's helper inside every instance: one static program, the same bytes behind every boundary.
 *
 *   init        be the instance's first process                        init.c
 *   manifest    describe every file of the image                       manifest.c
 *   call, open, read, boot, stat, list, namespaces, processes,
 *   mount-tmpfs, node, enter, clock, space, gain-user
 *               ask the kernel that serves this instance               ask.c
 *   hold, greet, shared-memory
 *               be, and look for, a process of the host                neighbour.c
 *   resident    which pages of a file are in memory                    pages.c
 *   closed      batch where nothing is allowed                         closed.c
 *   broken-out, as-user
 *               batch where a rootless container's way out leads       broken_out.c
 *   surface     which system calls get past the filter                 surface.c
 *   serve       run commands for the host, over a port                 serve.c
 *   interact    run the application with what the host types           interact.c
 *   relay       pass the application's output on to the host       relay.c
 *   pack        a file or folder as a tar archive                      pack.c
 *   unpack      the contrary                                           unpack.c
 *   compute, allocate, fork, files, spin
 *               work and pressure of a known size                      burden.c
 *   disturb     be a bad neighbour, bounded                            disturb.c
 *   crossings   time calls, faults, switches, pipes, sockets, files    crossings/
 *   renew       go on after having been saved                          renew.c
 *   begin       bear containers, outside of all of them                begin.c
 *   guest       be the first process of a User-mode Linux          guest.c
 *   wire        become a program with descriptors that are sent    wire.c
 *   batch       read verbs from standard input, a line each            below
 *   version     print what this program was built from
 *
 * Results are one line of JSON on standard output, unless the verb says otherwise; a wrong use is one line on
 * standard error and exit code 2. Out of scope: judging. What an answer means is for lab/isolation to say.
 */

#include "inside.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef SOURCE_DIGEST
#define SOURCE_DIGEST "unknown"
#endif

enum { USAGE = 2, MOST_WORDS = 16, MOST_INPUT = 1 << 16, LINE_SECONDS = 120 };

_Noreturn void fail(const char *format, ...) {
    va_list list;
    va_start(list, format);
    vfprintf(stderr, format, list);
    va_end(list);
    fputc('\n', stderr);
    exit(USAGE);
}

unsigned long long number(const char *text) {
    char *rest;
    errno = 0;
    unsigned long long value = strtoull(text, &rest, 0);
    if (errno || rest == text || *rest)
        fail("%s is not a number", text);
    return value;
}

double monotonic_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

void print_string(const char *bytes, size_t size) {
    putchar('"');
    for (size_t i = 0; i < size; i++) {
        unsigned char byte = (unsigned char)bytes[i];
        if (byte == '"' || byte == '\\')
            printf("\\%c", byte);
        else if (byte < 0x20 || byte >= 0x7f)
            printf("\\u%04x", byte);
        else
            putchar(byte);
    }
    putchar('"');
}

void print_outcome(long result) {
    int error = result < 0 ? errno : 0;
    const char *name = error ? strerrorname_np(error) : "";
    printf("\"ret\": %ld, \"errno\": %d, \"name\": \"%s\"", result, error, name ? name : "?");
}

static verb batch, version;

static const struct {
    const char *name;
    verb *run;
} verbs[] = {
    {"init", run_init},        {"serve", serve},             {"interact", interact},      {"relay", relay},
    {"pack", pack},
    {"unpack", unpack},        {"manifest", print_manifest}, {"batch", batch},
    {"surface", print_surface},
    {"call", make_call},       {"open", open_path},          {"read", read_path},
    {"stat", stat_path},       {"boot", tell_boot},          {"list", list_directory},     {"namespaces", list_namespaces},
    {"processes", find_processes}, {"mount-tmpfs", mount_tmpfs}, {"node", open_node},
    {"release-agent", open_release_agent},
    {"enter", enter_namespace}, {"clock", read_clock},        {"space", file_system_space},
    {"hold", hold},            {"greet", greet},             {"shared-memory", read_shared_memory},
    {"resident", resident_pages}, {"closed", closed},        {"broken-out", broken_out}, {"as-user", as_user}, {"gain-user", gain_user},        {"compute", compute},         {"allocate", allocate},     {"files", open_many},
    {"fork", fork_many},       {"spin", spin},               {"disturb", disturb},
    {"crossings", crossings},  {"renew", renew},          {"begin", begin},             {"guest", guest},
    {"wire", wire},            {"version", version},
};

static int run_verb(int count, char **arguments) {
    for (size_t i = 0; count > 0 && i < sizeof verbs / sizeof *verbs; i++)
        if (strcmp(verbs[i].name, arguments[0]) == 0)
            return verbs[i].run(count, arguments);
    fprintf(stderr, "inside: verbs are");
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++)
        fprintf(stderr, " %s", verbs[i].name);
    fputc('\n', stderr);
    return USAGE;
}

static int version(int count, char **arguments) {
    (void)count, (void)arguments;
    puts(SOURCE_DIGEST);
    return 0;
}

/* One line of a batch, in a process of its own: what a call did to it (a filter's kill, a namespace left) ends
 * with it. Prints exactly one line whatever happens. */
static void run_line(char *line) {
    char *words[MOST_WORDS + 1] = {NULL};
    int count = 0;
    for (char *word = strtok(line, " "); word && count < MOST_WORDS; word = strtok(NULL, " "))
        words[count++] = word;
    int output[2];
    if (pipe(output) < 0)
        fail("batch: pipe: %s", strerror(errno));
    pid_t child = fork();
    if (child < 0)
        fail("batch: fork: %s", strerror(errno));
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        alarm(LINE_SECONDS);
        dup2(open("/dev/null", O_RDONLY | O_CLOEXEC), STDIN_FILENO);
        dup2(output[1], STDOUT_FILENO);
        close(output[0]), close(output[1]);
        exit(run_verb(count, words));
    }
    close(output[1]);
    char buffer[4096];
    size_t printed = 0;
    for (ssize_t size; (size = read(output[0], buffer, sizeof buffer)) > 0; printed += (size_t)size)
        fwrite(buffer, 1, (size_t)size, stdout);
    close(output[0]);
    int status = 0;
    waitpid(child, &status, 0);
    if (printed == 0)
        printf("{\"died\": %d}\n", WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
    fflush(stdout);
}

/* batch: each line of standard input is a verb and its arguments, separated by blanks; answers in their order.
 * All of it is read first, and not through stdio: a child's exit(3) would seek a shared file back. */
static int batch(int count, char **arguments) {
    static char text[MOST_INPUT + 1];
    size_t filled = 0;
    (void)count, (void)arguments;
    for (ssize_t size; (size = read(STDIN_FILENO, text + filled, MOST_INPUT - filled)) > 0;)
        filled += (size_t)size;
    if (filled == MOST_INPUT)
        fail("batch: more than %d bytes", MOST_INPUT - 1);
    char *rest = text;
    for (char *line; (line = strsep(&rest, "\n"));)
        if (*line)
            run_line(line);
    return 0;
}

int main(int count, char **arguments) {
    if (setvbuf(stdout, NULL, _IOFBF, 1 << 16) != 0) /* answers leave in one write(2) */
        return 1;
    static char *machine[] = {"guest", "/lab", NULL};
    int is_first = strcmp(arguments[0], "/init.krun") == 0; /* the program with which libkrun's kernel begins */
    int code = is_first ? guest(2, machine) : run_verb(count - 1, arguments + 1);
    if (fflush(stdout) != 0)
        fail("standard output: %s", strerror(errno));
    return code;
}
