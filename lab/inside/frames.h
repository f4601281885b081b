/* The protocol between a guest's sessions and the host, and the bytes it is made of. Its other half is
 * lab/hypervisor/channels/frames.py.
 *
 * A frame is session, kind and length of the payload, each 32 bits, most significant byte first, then the payload.
 * The host numbers the sessions, from 1 on. A connection begins with the word that the host asked for and a line
 * feed, so that the host can tell what was left on the line from what is new.
 *
 *   to the guest                                             from the guest
 *   OPEN     struct opening, then strings that end in NUL:   STARTED  the program was executed
 *            user, directory, arguments, environment         FAILED   32 bits: the errno; the session is over
 *   DATA     for standard input                              DATA     from standard output, or the terminal
 *   END      of standard input                               ERRORS   from standard error
 *   RESIZE   16 bits rows, 16 bits columns                   ENDED    32 bits: exit code; the session is over
 *   SIGNAL   32 bits
 *   CLOSE    kill it
 *   SHUT     32 bits stream: nobody reads it any more
 *   CREDIT   32 bits stream (0 DATA, 1 ERRORS), 32 bits      CREDIT   32 bits 0, 32 bits bytes of DATA passed on
 *            bytes passed on                                 TAKEN    32 bits bytes taken from the line, of session 0
 *
 * TAKEN is for a line that loses what nobody takes at once: the host sends no more than its buffer holds before that.
 *
 * Either side may have WINDOW bytes of a stream on their way, and more only after CREDIT for them: a reader that is
 * stuck stops its own stream and nothing else.
 */

#ifndef LAB_FRAMES_H
#define LAB_FRAMES_H

#include <stddef.h>
#include <stdint.h>

enum { OPEN = 1, DATA, END, RESIZE, SIGNAL, CLOSE, CREDIT, STARTED, FAILED, ERRORS, ENDED, SHUT, TAKEN };
enum { WINDOW = 1 << 16, CHUNK = 1 << 14, HEADER = 12, MOST_PAYLOAD = 1 << 20 };

struct opening { /* each as in the frame */
    uint32_t has_terminal;
    uint16_t rows, columns;
    uint32_t arguments, variables;
};

struct frame {
    uint32_t session, kind, length;
    unsigned char *payload;
};

/* What came in: whole frames are taken from the front. */
struct incoming {
    unsigned char data[HEADER + MOST_PAYLOAD];
    size_t start, filled;
};
int receive(struct incoming *in, int from);             /* 1 something came, 0 nothing now, -1 the end */
int take_frame(struct incoming *in, struct frame *out); /* 1 a frame, valid until receive; 0 none; -1 nonsense */

/* What is to go out. */
struct outgoing {
    unsigned char *data;
    size_t start, filled, room;
};
void queue_bytes(struct outgoing *out, const void *bytes, size_t size);
void queue_frame(struct outgoing *out, uint32_t session, uint32_t kind, const void *payload, size_t size);
void queue_number(struct outgoing *out, uint32_t session, uint32_t kind, uint32_t number);
int transmit(struct outgoing *out, int to); /* 0, or -1 when nobody will ever read it */

uint32_t read_number(const unsigned char *bytes);

#endif
