/* One command of a guest's: started behind the application's boundary, its streams copied to and from frames. */

#include "session.h"
#include "inside.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ENTER_FAILED = 125, MOST_WORDS = MOST_PAYLOAD };

static void close_end(int *end) {
    if (*end >= 0)
        close(*end);
    *end = -1;
}

static int enter(const struct place *place) {
    if (place->group) {
        char path[4096];
        if (snprintf(path, sizeof path, "%s/cgroup.procs", place->group) >= (int)sizeof path)
            return -1;
        int procs = open(path, O_WRONLY | O_CLOEXEC);
        if (procs < 0 || write(procs, "0", 1) != 1)
            return -1;
        close(procs);
    }
    return place->root && (chroot(place->root) < 0 || chdir("/") < 0) ? -1 : 0;
}

/* The strings of an OPEN frame in place, NULL when they are not what its numbers say. */
static char **split(char *text, size_t size, size_t count) {
    char **words = calloc(count + 1, sizeof *words);
    size_t found = 0;
    if (words && size > 0 && text[size - 1] == '\0')
        for (char *end = text + size; text < end && found < count; text += strlen(text) + 1)
            words[found++] = text;
    if (words && found < count) {
        free(words);
        return NULL;
    }
    return words;
}

/* The three streams of the child, as 0, 1 and 2, and our ends of them. */
struct ends {
    int theirs[3];
};

static int make_ends(struct session *session, struct ends *ends) {
    int pair[2], failed = 0;
    *ends = (struct ends){{-1, -1, -1}};
    if (session->has_terminal) {
        failed = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0;
        if (!failed) {
            session->socket = pair[0], ends->theirs[0] = pair[1];
            ends->theirs[1] = open("/dev/null", O_RDWR | O_CLOEXEC);
            ends->theirs[2] = open("/dev/null", O_RDWR | O_CLOEXEC);
        }
    } else
        for (int stream = 0; stream < 3 && !failed; stream++) {
            failed = pipe2(pair, O_CLOEXEC) < 0;
            if (!failed) {
                ends->theirs[stream] = pair[stream != 0];
                *(stream ? &session->output[stream - 1] : &session->input) = pair[stream == 0];
                fcntl(pair[stream == 0], F_SETFL, O_NONBLOCK);
            }
        }
    return failed ? -1 : 0;
}

static _Noreturn void become_command(const struct application *app, const struct place *place, struct ends *ends,
                                     char **environment) {
    sigset_t none;
    sigemptyset(&none);
    for (int number = 1; number < SIGRTMIN; number++) /* a shell's background jobs ignore SIGINT, and that is passed on */
        signal(number, SIG_DFL);
    for (int stream = 0; stream < 3; stream++)
        if (dup2(ends->theirs[stream], stream) < 0)
            _exit(ENTER_FAILED);
    if (enter(place) < 0) {
        dprintf(app->status_fd, "%d", errno);
        _exit(ENTER_FAILED);
    }
    environ = environment;
    execute_application(app, &none);
}

static int start(struct session *session, struct application *app, const struct place *place, char **environment) {
    struct ends ends;
    int status[2] = {-1, -1};
    if (make_ends(session, &ends) == 0 && pipe2(status, O_CLOEXEC | O_NONBLOCK) == 0) {
        session->status = status[0], app->status_fd = status[1];
        session->pid = fork();
        if (session->pid == 0)
            become_command(app, place, &ends, environment);
        if (session->pid > 0)
            session->process = (int)syscall(SYS_pidfd_open, session->pid, 0);
    } else
        session->pid = -1;
    int error = errno;
    for (int stream = 0; stream < 3; stream++)
        close_end(&ends.theirs[stream]);
    close_end(&status[1]);
    errno = error;
    return session->pid < 0 ? -1 : 0;
}

/* The program that an OPEN frame asks for, its words in *words, its environment among them; 0 if it is malformed. */
static int read_opening(const struct frame *frame, struct application *app, char ***words, char ***environment) {
    struct opening opening;
    if (frame->length <= sizeof opening)
        return 0;
    memcpy(&opening, frame->payload, sizeof opening);
    uint32_t arguments = ntohl(opening.arguments), variables = ntohl(opening.variables);
    if (arguments == 0 || arguments > MOST_WORDS || variables > MOST_WORDS)
        return 0;
    *words = split((char *)frame->payload + sizeof opening, frame->length - sizeof opening,
                   2 + (size_t)arguments + variables);
    if (!*words)
        return 0;
    *environment = *words + 2 + arguments;
    *app = (struct application){
        .status_fd = -1,
        .has_terminal = opening.has_terminal != 0,
        .terminal = {.ws_row = ntohs(opening.rows), .ws_col = ntohs(opening.columns)},
        .user = *(*words)[0] ? (*words)[0] : NULL,
        .directory = *(*words)[1] ? (*words)[1] : NULL,
        .argv = calloc(arguments + 1, sizeof *app->argv), /* which ends where the environment begins */
    };
    if (app->argv)
        memcpy(app->argv, *words + 2, arguments * sizeof *app->argv);
    return app->argv != NULL;
}

struct session *open_session(const struct frame *frame, const struct place *place, struct outgoing *out) {
    struct session *session = calloc(1, sizeof *session);
    struct application app = {0};
    char **words = NULL, **environment = NULL;
    int started = 0, error = ENOMEM;
    if (session) {
        *session = (struct session){.id = frame->session, .process = -1, .status = -1, .socket = -1, .input = -1,
                                    .output = {-1, -1}, .credit = {WINDOW, WINDOW}};
        error = EINVAL;
        if (read_opening(frame, &app, &words, &environment)) {
            session->has_terminal = app.has_terminal;
            started = start(session, &app, place, environment) == 0;
            error = errno;
        }
    }
    free(app.argv);
    free(words);
    if (started)
        return session;
    queue_number(out, frame->session, FAILED, (uint32_t)error);
    if (session)
        forget_session(session);
    return NULL;
}

/* Bytes that will never be passed on count as passed on: the host shall not wait for them. */
static void report_passed_on(struct session *session, size_t size, struct outgoing *out) {
    session->unreported += size;
    if (session->unreported >= WINDOW / 4 || (session->unreported > 0 && session->waiting == 0)) {
        const uint32_t payload[] = {0, htonl((uint32_t)session->unreported)};
        queue_frame(out, session->id, CREDIT, payload, sizeof payload);
        session->unreported = 0;
    }
}

static void pass_input_on(struct session *session, struct outgoing *out) {
    size_t done = 0;
    while (session->input >= 0 && done < session->waiting) {
        ssize_t size = write(session->input, session->buffer + done, session->waiting - done);
        if (size < 0 && errno == EAGAIN)
            break;
        if (size < 0)
            close_end(&session->input); /* nobody reads it any more */
        else
            done += (size_t)size;
    }
    if (session->input < 0 && session->socket < 0 && session->status < 0)
        done = session->waiting;
    memmove(session->buffer, session->buffer + done, session->waiting - done);
    session->waiting -= done;
    report_passed_on(session, done, out);
    if (session->input_ends && session->waiting == 0 && !session->has_terminal)
        close_end(&session->input);
}

void obey(struct session *session, const struct frame *frame, struct outgoing *out) {
    const unsigned char *payload = frame->payload;
    if (frame->kind == DATA && frame->length <= WINDOW - session->waiting) {
        memcpy(session->buffer + session->waiting, payload, frame->length);
        session->waiting += frame->length;
        pass_input_on(session, out);
    } else if (frame->kind == END) {
        session->input_ends = 1;
        pass_input_on(session, out);
    } else if (frame->kind == RESIZE && frame->length == 4 && session->has_terminal && session->input >= 0) {
        uint16_t sides[2];
        memcpy(sides, payload, sizeof sides);
        struct winsize size = {.ws_row = ntohs(sides[0]), .ws_col = ntohs(sides[1])};
        ioctl(session->input, TIOCSWINSZ, &size);
    } else if (frame->kind == SIGNAL && frame->length == 4 && session->process >= 0)
        kill(session->pid, (int)read_number(payload));
    else if (frame->kind == CREDIT && frame->length == 8 && read_number(payload) < 2)
        session->credit[read_number(payload)] += read_number(payload + 4);
    else if (frame->kind == SHUT && frame->length == 4 && read_number(payload) < 2 && !session->has_terminal)
        close_end(&session->output[read_number(payload)]);
    else if (frame->kind == CLOSE) {
        if (session->process >= 0) {
            kill(-session->pid, SIGKILL); /* it leads a group */
            kill(session->pid, SIGKILL);
        }
        close_end(&session->input), close_end(&session->output[0]), close_end(&session->output[1]);
    }
}

void watch(const struct session *session, const struct outgoing *out, struct pollfd watched[WATCHED]) {
    int quiet = out->filled - out->start >= MOST_QUEUED;
    watched[0] = (struct pollfd){.fd = session->process, .events = POLLIN};
    watched[1] = (struct pollfd){.fd = session->status, .events = POLLIN};
    watched[2] = (struct pollfd){.fd = session->waiting > 0 ? session->input : -1, .events = POLLOUT};
    for (int stream = 0; stream < 2; stream++) {
        int wanted = !quiet && session->credit[stream] > 0;
        watched[3 + stream] = (struct pollfd){.fd = wanted ? session->output[stream] : -1, .events = POLLIN};
    }
}

/* Whether it is still on its way to execve(2); 0 afterwards, -1 when that failed. */
static int await_start(struct session *session, struct outgoing *out) {
    char text[16] = "";
    ssize_t size = read(session->status, text, sizeof text - 1);
    if (size < 0 && errno == EAGAIN)
        return 1;
    close_end(&session->status);
    if (size == 0 && session->has_terminal) {
        session->input = receive_descriptor(session->socket);
        close_end(&session->socket);
        if (session->input >= 0) {
            fcntl(session->input, F_SETFL, O_NONBLOCK);
            session->output[0] = fcntl(session->input, F_DUPFD_CLOEXEC, 0);
        }
    }
    int error = size > 0 ? atoi(text) : session->has_terminal && session->input < 0 ? EIO : 0;
    if (error)
        queue_number(out, session->id, FAILED, (uint32_t)error);
    else
        queue_frame(out, session->id, STARTED, NULL, 0);
    pass_input_on(session, out);
    return error ? -1 : 0;
}

/* As much as credit and the line allow. With over, an output that is empty now is done: what a child that was left
 * behind goes on writing is nobody's. */
static void pass_output_on(struct session *session, int stream, int over, struct outgoing *out) {
    unsigned char chunk[CHUNK];
    while (session->output[stream] >= 0 && session->credit[stream] > 0 && out->filled - out->start < MOST_QUEUED) {
        size_t most = session->credit[stream] < CHUNK ? session->credit[stream] : CHUNK;
        ssize_t size = read(session->output[stream], chunk, most);
        if (size > 0) {
            queue_frame(out, session->id, stream ? ERRORS : DATA, chunk, (size_t)size);
            session->credit[stream] -= (uint32_t)size;
        } else if (size == 0 || errno != EAGAIN || over)
            close_end(&session->output[stream]);
        if (size <= 0 || !over)
            return;
    }
}

int advance(struct session *session, const struct pollfd watched[WATCHED], struct outgoing *out) {
    if (watched[0].revents && session->process >= 0) {
        int status = 0;
        waitpid(session->pid, &status, 0);
        session->exit_code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
        close_end(&session->process);
    }
    int over = session->process < 0;
    if (session->status >= 0 && (watched[1].revents || over) && await_start(session, out) < 0)
        return 1;
    if (watched[2].revents)
        pass_input_on(session, out);
    for (int stream = 0; stream < 2; stream++)
        if (over || watched[3 + stream].revents)
            pass_output_on(session, stream, over, out);
    if (!over || session->output[0] >= 0 || session->output[1] >= 0)
        return 0;
    queue_number(out, session->id, ENDED, (uint32_t)session->exit_code);
    return 1;
}

void forget_session(struct session *session) {
    if (session->process >= 0) { /* only when it failed to start: it is about to end */
        kill(session->pid, SIGKILL);
        waitpid(session->pid, NULL, 0);
    }
    int *ends[] = {&session->process, &session->status, &session->socket, &session->input, &session->output[0],
                   &session->output[1]};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        close_end(ends[i]);
    free(session);
}
