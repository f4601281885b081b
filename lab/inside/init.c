/* The first process of an instance: starts the application, forwards signals to it, reaps orphans.
 *
 *   init [--status-fd N | --report-fd N] [--terminal ROWSxCOLUMNS] [--socket-fd N] [--user UID:GID[:GID…]]
 *        [--directory DIR] [--environment-fd N] -- PROGRAM [ARGUMENT…]
 *
 * With a terminal, standard input is a socket, over which the application sends the terminal's master before it is
 * executed; its streams are the terminal then. Without, it has the streams of its init. --socket-fd names a descriptor
 * that is to be standard input. From --environment-fd it reads the environment, NAME=value and a zero byte each, in
 * place of the one that whoever started it has.
 *
 * The peer of descriptor N reads end-of-file when execve(2) succeeded, otherwise the errno in decimal. With --report-fd
 * it reads 0 when that succeeded: for a descriptor of which others, too, hold copies, so that its end says nothing.
 * Exits with the application's code, 128 + n after signal n, 127 when there is no such program, 126 when it
 * can't be executed (the shell's and Docker's convention).
 */

#include "inside.h"

#include <errno.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <fcntl.h>
#include <unistd.h>

enum { NOT_EXECUTABLE = 126, NOT_FOUND = 127, MOST_GROUPS = 64, MOST_ENVIRONMENT = 1 << 21 };

/* What is to be read there is a file, or a pipe whose writer has closed it, or will. */
static void take_environment(int from) {
    char *text = malloc(MOST_ENVIRONMENT + 1);
    size_t filled = 0;
    ssize_t size = 0;
    while (text && (size = read(from, text + filled, MOST_ENVIRONMENT - filled)) > 0)
        filled += (size_t)size;
    if (!text || size < 0 || filled == MOST_ENVIRONMENT)
        fail("init: the environment can't be read: %s", size < 0 ? strerror(errno) : "it is too long");
    text[filled] = '\0';
    close(from);
    clearenv();
    for (char *each = text; each < text + filled; each += strlen(each) + 1)
        if (putenv(each) != 0)
            fail("init: environment: %s", strerror(errno));
}

static struct application parse(int count, char **arguments) {
    struct application app = {.status_fd = -1, .report_fd = -1, .socket_fd = -1};
    int next = 1;
    for (; next < count && strcmp(arguments[next], "--") != 0; next += 2) {
        if (next + 1 >= count)
            fail("init: %s needs a value", arguments[next]);
        const char *value = arguments[next + 1];
        if (strcmp(arguments[next], "--status-fd") == 0)
            app.status_fd = (int)number(value);
        else if (strcmp(arguments[next], "--report-fd") == 0)
            app.report_fd = (int)number(value);
        else if (strcmp(arguments[next], "--terminal") == 0) {
            app.has_terminal = 1;
            app.terminal = parse_size(value);
        } else if (strcmp(arguments[next], "--socket-fd") == 0)
            app.socket_fd = (int)number(value);
        else if (strcmp(arguments[next], "--user") == 0)
            app.user = value;
        else if (strcmp(arguments[next], "--directory") == 0)
            app.directory = value;
        else if (strcmp(arguments[next], "--environment-fd") == 0)
            take_environment((int)number(value));
        else
            fail("init: unknown option %s", arguments[next]);
    }
    if (next + 1 >= count)
        fail("init: expected -- PROGRAM [ARGUMENT…]");
    app.argv = arguments + next + 1;
    return app;
}

static int become(const char *user) {
    gid_t groups[MOST_GROUPS];
    int count = 0;
    char *rest;
    uid_t uid = (uid_t)strtoul(user, &rest, 10);
    while (*rest == ':' && count < MOST_GROUPS)
        groups[count++] = (gid_t)strtoul(rest + 1, &rest, 10);
    if (*rest != '\0' || count == 0) {
        errno = EINVAL;
        return -1;
    }
    return setgroups((size_t)count - 1, groups + 1) || setgid(groups[0]) || setuid(uid) ? -1 : 0;
}

/* By the right of whoever enters it: where root has no capability, a user's own folder may be closed to it. */
static int enter(const char *directory) {
    return !directory || chdir(directory) == 0 ? 0 : -1;
}

/* In a child of the caller's. Its terminal is made after the change of ids, so that it is the user's own. */
_Noreturn void execute_application(const struct application *app, const sigset_t *mask) {
    if (app->has_terminal)
        setsid();
    else
        setpgid(0, 0);
    if (!app->has_terminal && isatty(STDIN_FILENO)) /* SIGTTOU is blocked; fails harmlessly if it is not ours */
        tcsetpgrp(STDIN_FILENO, getpgrp());
    int entered = enter(app->directory) == 0, may_yet = entered || (app->user && errno == EACCES);
    if (may_yet && (!app->user || become(app->user) == 0) && (entered || enter(app->directory) == 0) &&
        (!app->has_terminal || take_terminal(app->terminal) == 0)) {
        /* After the change of ids, which would clear it: who kills the helper kills the application. */
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        sigprocmask(SIG_SETMASK, mask, NULL);
        execvp(app->argv[0], app->argv);
    }
    int error = errno;
    if (app->status_fd >= 0)
        dprintf(app->status_fd, "%d", error);
    else
        fprintf(stderr, "%s: %s\n", app->argv[0], strerror(error));
    _exit(error == ENOENT ? NOT_FOUND : NOT_EXECUTABLE);
}

/* Reap whatever has ended; true, with its wait status, once the application itself has. */
static int reap(pid_t application, int *ended) {
    int status, found = 0;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
        if (pid == application) {
            *ended = status;
            found = 1;
        }
    return found;
}

/* What the application's process says until it is executed, passed on: its errno, or 0. */
static void report(int from, int to) {
    char said[16];
    ssize_t size = read(from, said, sizeof said);
    dprintf(to, "%.*s", size > 0 ? (int)size : 1, size > 0 ? said : "0");
    close(from);
    close(to);
}

static int supervise(pid_t application, const sigset_t *waited) {
    int status;
    for (siginfo_t info;;) {
        int received = sigwaitinfo(waited, &info);
        if (received == SIGCHLD) {
            if (reap(application, &status))
                return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
        } else if (received > 0)
            kill(application, received);
    }
}

int run_init(int count, char **arguments) {
    struct application app = parse(count, arguments);
    int told[2] = {-1, -1};
    if (app.report_fd >= 0) {
        if (pipe2(told, O_CLOEXEC) < 0 || fcntl(app.report_fd, F_SETFD, FD_CLOEXEC) < 0)
            fail("init: descriptor %d: %s", app.report_fd, strerror(errno));
        app.status_fd = told[1];
    }
    if (app.status_fd >= 0 && fcntl(app.status_fd, F_SETFD, FD_CLOEXEC) < 0)
        fail("init: descriptor %d: %s", app.status_fd, strerror(errno));
    if (app.socket_fd >= 0 && (dup2(app.socket_fd, STDIN_FILENO) < 0 || close(app.socket_fd) < 0))
        fail("init: descriptor %d: %s", app.socket_fd, strerror(errno));
    if (getpid() != 1 && prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0)
        fail("init: PR_SET_CHILD_SUBREAPER: %s", strerror(errno));

    /* Blocked and waited for, so that none is lost between fork and the first wait. A fault's own signals stay
     * deliverable, and a stop of the terminal's would stop PID 1 for nothing. */
    sigset_t waited, before;
    sigfillset(&waited);
    const int kept[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS};
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        sigdelset(&waited, kept[i]);
    sigprocmask(SIG_SETMASK, &waited, &before);
    sigdelset(&waited, SIGTTIN);
    sigdelset(&waited, SIGTTOU);

    pid_t application = fork();
    if (application < 0)
        fail("init: fork: %s", strerror(errno));
    if (application == 0)
        execute_application(&app, &before);
    if (app.has_terminal) /* the other end of the socket shall see the end of it when the application is executed */
        dup2(open("/dev/null", O_RDWR | O_CLOEXEC), STDIN_FILENO);
    else
        setpgid(application, application); /* both sides do it: whoever is first, the group exists from here on */
    if (app.status_fd >= 0)
        close(app.status_fd);
    if (app.report_fd >= 0)
        report(told[0], app.report_fd);
    return supervise(application, &waited);
}
