/* An application in a guest that somebody types to: between it and the port its input comes from.
 *
 *   interact [--terminal] [--acknowledge] [--status-fd N] [--root DIR] PORT -- PROGRAM [ARGUMENT…]
 *
 * PROGRAM runs, below DIR, with standard input fed by the DATA frames of PORT (frames.h) until END. With --terminal it is told by
 * its own options to make one (init.c): what comes out of that goes to standard output, RESIZE frames resize it.
 * With --acknowledge it answers how many bytes it has taken, as a 32-bit number each time (frames.h, TAKEN).
 * Descriptor N is left to PROGRAM. Signals are passed on; the exit code is PROGRAM's.
 */

#include "frames.h"
#include "inside.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { NOT_EXECUTABLE = 126, AGAIN_MILLISECONDS = 1000 };

static struct incoming in;

struct interaction {
    int port, signals;
    int socket; /* brings the terminal's master; -1 without one and once it is here */
    int input;  /* to the program, or the master; -1 while there is none */
    int output; /* the master, -1 without a terminal */
    pid_t pid;
    struct frame frame; /* what can't be passed on yet */
    size_t done;        /* bytes of it that were */
    int holds, connected, acknowledges;
};

static pid_t start(struct interaction *it, int terminal, int status, const char *root, char **argv,
                   const sigset_t *mask) {
    int pair[2];
    if (terminal ? socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) : pipe2(pair, O_CLOEXEC))
        fail("interact: %s", strerror(errno));
    *(terminal ? &it->socket : &it->input) = pair[1];
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        sigprocmask(SIG_SETMASK, mask, NULL);
        signal(SIGPIPE, SIG_DFL);
        dup2(pair[0], STDIN_FILENO);
        if (!root || (chroot(root) == 0 && chdir("/") == 0))
            execvp(argv[0], argv);
        fprintf(stderr, "%s: %s\n", argv[0], strerror(errno));
        _exit(NOT_EXECUTABLE);
    }
    if (pid < 0)
        fail("interact: fork: %s", strerror(errno));
    close(pair[0]);
    if (status >= 0)
        close(status);
    if (it->input >= 0)
        fcntl(it->input, F_SETFL, O_NONBLOCK);
    return pid;
}

static void close_input(struct interaction *it) {
    if (it->input >= 0)
        close(it->input);
    it->input = -1;
}

static void take_master(struct interaction *it) {
    int master = receive_descriptor(it->socket);
    close(it->socket);
    it->socket = -1;
    if (master >= 0) {
        fcntl(master, F_SETFL, O_NONBLOCK);
        it->input = master;
        it->output = fcntl(master, F_DUPFD_CLOEXEC, 0);
    }
}

static void obey_input(struct interaction *it) {
    const struct frame *frame = &it->frame;
    while (frame->kind == DATA && it->done < frame->length && it->input >= 0) {
        ssize_t size = write(it->input, frame->payload + it->done, frame->length - it->done);
        if (size < 0 && errno == EAGAIN)
            return;
        if (size < 0)
            close_input(it); /* nobody reads it any more */
        else
            it->done += (size_t)size;
    }
    if (frame->kind == END && it->output < 0)
        close_input(it);
    if (frame->kind == RESIZE && frame->length == 4 && it->output >= 0) {
        struct winsize size = {.ws_row = (unsigned short)(frame->payload[0] << 8 | frame->payload[1]),
                               .ws_col = (unsigned short)(frame->payload[2] << 8 | frame->payload[3])};
        ioctl(it->output, TIOCSWINSZ, &size);
    }
    it->holds = 0;
}

/* Frames one by one: the next only when the last has been passed on, which stops who types, nobody else. */
static void obey_frames(struct interaction *it) {
    int taken = 0;
    if (it->holds)
        obey_input(it);
    while (!it->holds && (taken = take_frame(&in, &it->frame)) > 0) {
        it->holds = 1, it->done = 0;
        obey_input(it);
    }
    if (taken < 0)
        in.start = in.filled = 0;
}

/* What the terminal shows, as far as it is there: 0 when there is no more just now. */
static int show(struct interaction *it) {
    char chunk[CHUNK];
    ssize_t size = it->output >= 0 ? read(it->output, chunk, sizeof chunk) : -1;
    if (size < 0 && it->output >= 0 && errno == EIO) { /* nobody holds the terminal any more */
        close(it->output);
        it->output = -1;
    }
    for (ssize_t done = 0, more; done < size; done += more)
        if ((more = write(STDOUT_FILENO, chunk + done, (size_t)(size - done))) < 0)
            return 0;
    return size > 0;
}

static void pass_signal_on(struct interaction *it) {
    struct signalfd_siginfo info;
    if (read(it->signals, &info, sizeof info) == sizeof info && info.ssi_signo != SIGCHLD)
        kill(it->pid, (int)info.ssi_signo);
}

static void take(struct interaction *it) {
    size_t before = in.filled - in.start;
    if (receive(&in, it->port) < 0) {
        it->connected = 0;
        in.start = in.filled = 0;
        return;
    }
    uint32_t taken = htonl((uint32_t)(in.filled - in.start - before));
    if (it->acknowledges && taken && write(it->port, &taken, sizeof taken) < 0)
        it->connected = 0;
}

static int attend(struct interaction *it) {
    int status;
    while (waitpid(it->pid, &status, WNOHANG) == 0) {
        int reads = it->connected && !it->holds && (it->input >= 0 || it->socket < 0);
        struct pollfd watched[] = {
            {.fd = it->signals, .events = POLLIN},
            {.fd = it->socket, .events = POLLIN},
            {.fd = reads ? it->port : -1, .events = POLLIN},
            {.fd = it->holds ? it->input : -1, .events = POLLOUT},
            {.fd = it->output, .events = POLLIN},
        };
        poll(watched, sizeof watched / sizeof *watched, it->connected ? -1 : AGAIN_MILLISECONDS);
        it->connected = 1; /* the host may have come back */
        if (watched[0].revents)
            pass_signal_on(it);
        if (watched[1].revents)
            take_master(it);
        if (watched[2].revents)
            take(it);
        if (watched[2].revents || watched[3].revents)
            obey_frames(it);
        if (watched[4].revents)
            show(it);
    }
    if (it->socket >= 0) /* it may have ended before its terminal was looked at */
        take_master(it);
    while (show(it))
        ;
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

int interact(int count, char **arguments) {
    struct interaction it = {.port = -1, .socket = -1, .input = -1, .output = -1, .connected = 1};
    int terminal = 0, status = -1, next = 1;
    const char *root = NULL;
    for (; next < count && strncmp(arguments[next], "--", 2) == 0; next++)
        if (strcmp(arguments[next], "--terminal") == 0)
            terminal = 1;
        else if (strcmp(arguments[next], "--acknowledge") == 0)
            it.acknowledges = 1;
        else if (strcmp(arguments[next], "--status-fd") == 0 && next + 1 < count)
            status = (int)number(arguments[++next]);
        else if (strcmp(arguments[next], "--root") == 0 && next + 1 < count)
            root = arguments[++next];
        else
            fail("interact: unknown option %s", arguments[next]);
    if (count - next < 3 || strcmp(arguments[next + 1], "--") != 0)
        fail("interact: expected PORT -- PROGRAM [ARGUMENT…]");
    it.port = open(arguments[next], O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (it.port < 0)
        fail("interact: %s: %s", arguments[next], strerror(errno));
    sigset_t all, before;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &before);
    signal(SIGPIPE, SIG_IGN);
    it.signals = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
    it.pid = start(&it, terminal, status, root, arguments + next + 2, &before);
    return attend(&it);
}
