/* One command of a guest's, between its process and the host's frames; see session.c. */

#ifndef LAB_SESSION_H
#define LAB_SESSION_H

#include "frames.h"

#include <poll.h>
#include <sys/types.h>

enum { MOST_QUEUED = 1 << 18, WATCHED = 5 };

struct place {
    const char *root;  /* where commands live, or NULL for here */
    const char *group; /* the control group they join, or NULL for ours */
};

struct session {
    struct session *next;
    uint32_t id;
    pid_t pid;
    int process;   /* a pidfd: readable when it has ended; -1 from then on */
    int status;    /* tells whether it could be executed; -1 once that is known */
    int socket;    /* brings the terminal's master; -1 without a terminal and once it is here */
    int input;     /* to standard input, or a terminal's master; -1 when that is over */
    int output[2]; /* from standard output, or the same terminal's master, and standard error; -1 when they are over */
    int has_terminal, input_ends, exit_code;
    uint32_t credit[2];
    size_t waiting, unreported; /* bytes of buffer in use; bytes passed on that no CREDIT has told yet */
    unsigned char buffer[WINDOW];
};

struct session *open_session(const struct frame *opening, const struct place *place, struct outgoing *out);
void obey(struct session *session, const struct frame *frame, struct outgoing *out);
void watch(const struct session *session, const struct outgoing *out, struct pollfd watched[WATCHED]);
/* Do what can be done without waiting. 1 when the session is over, for the caller to forget it. */
int advance(struct session *session, const struct pollfd watched[WATCHED], struct outgoing *out);
void forget_session(struct session *session);

#endif
