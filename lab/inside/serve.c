/* Commands for the host in a guest, any number at once, over one port.
 *
 *   serve [--acknowledge yes] [--root DIR] [--group DIR] WORD PORT
 *
 * WORD is the first thing sent (frames.h). PORT is a virtio-serial port's device, or - for standard input, a socket.
 * Ends, and every command with it, when the host has closed its side.
 */

#include "inside.h"
#include "session.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BUSY_TRIES = 100, BUSY_MICROSECONDS = 20000 };

static struct incoming in;
static struct outgoing out;
static struct session *sessions;
static size_t session_count;
static int acknowledges; /* what it takes from the port */

/* A port opens once: who served it before may still be on its way out. */
static int open_port(const char *path) {
    if (strcmp(path, "-") == 0)
        return fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
    int port = -1;
    for (int tries = 0; port < 0 && tries < BUSY_TRIES; tries++) {
        port = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
        if (port < 0 && errno != EBUSY)
            break;
        if (port < 0)
            usleep(BUSY_MICROSECONDS);
    }
    return port;
}

static void obey_frame(const struct frame *frame, const struct place *place) {
    struct session *session = sessions;
    while (session && session->id != frame->session)
        session = session->next;
    if (session)
        obey(session, frame, &out);
    else if (frame->kind == OPEN && (session = open_session(frame, place, &out))) {
        session->next = sessions;
        sessions = session;
        session_count++;
    } /* anything else comes too late: the session is over */
}

static void advance_all(const struct pollfd *watched) {
    struct session **link = &sessions;
    while (*link) {
        struct session *session = *link;
        if (advance(session, watched, &out)) {
            *link = session->next;
            session_count--;
            forget_session(session);
        } else
            link = &session->next;
        watched += WATCHED;
    }
}

static int take(int port) {
    size_t before = in.filled - in.start;
    int lives = receive(&in, port) >= 0;
    size_t taken = in.filled - in.start - before;
    if (acknowledges && taken > 0)
        queue_number(&out, 0, TAKEN, (uint32_t)taken);
    return lives;
}

/* One round: wait, then let every session do what it can. 0 when the host has gone. */
static int serve_once(int port, const struct place *place) {
    struct pollfd *watched = calloc(1 + session_count * WATCHED, sizeof *watched);
    if (!watched)
        fail("serve: no memory for %zu sessions", session_count);
    size_t count = 1;
    int queued = out.filled > out.start, crowded = out.filled - out.start >= MOST_QUEUED;
    watched[0] = (struct pollfd){.fd = port, .events = (short)((queued ? POLLOUT : 0) | (crowded ? 0 : POLLIN))};
    for (struct session *session = sessions; session; session = session->next, count += WATCHED)
        watch(session, &out, watched + count);
    int lives = poll(watched, count, -1) >= 0 || errno == EINTR;
    advance_all(watched + 1); /* first, since watched is about those sessions that were there */
    struct frame frame;
    int taken = 0;
    if (lives && watched[0].revents & POLLIN)
        lives = take(port);
    else if (lives && watched[0].revents & (POLLHUP | POLLERR))
        lives = 0;
    while (lives && (taken = take_frame(&in, &frame)) > 0)
        obey_frame(&frame, place);
    free(watched);
    return lives && taken == 0 && transmit(&out, port) == 0;
}

int serve(int count, char **arguments) {
    struct place place = {0};
    int next = 1;
    for (; next + 1 < count && strncmp(arguments[next], "--", 2) == 0; next += 2)
        if (strcmp(arguments[next], "--root") == 0)
            place.root = arguments[next + 1];
        else if (strcmp(arguments[next], "--group") == 0)
            place.group = arguments[next + 1];
        else if (strcmp(arguments[next], "--acknowledge") == 0)
            acknowledges = 1;
        else
            fail("serve: unknown option %s", arguments[next]);
    if (count - next != 2)
        fail("serve: expected WORD PORT");
    int port = open_port(arguments[next + 1]);
    if (port < 0 || fcntl(port, F_SETFL, O_NONBLOCK) < 0)
        fail("serve: %s: %s", arguments[next + 1], strerror(errno));
    signal(SIGPIPE, SIG_IGN);
    queue_bytes(&out, arguments[next], strlen(arguments[next]));
    queue_bytes(&out, "\n", 1);
    int lives = transmit(&out, port) == 0;
    while (lives)
        lives = serve_once(port, &place);
    while (sessions) {
        struct session *session = sessions;
        sessions = session->next;
        const struct frame frame = {.session = session->id, .kind = CLOSE};
        obey(session, &frame, &out);
        forget_session(session);
    }
    free(out.data);
    return 0;
}
