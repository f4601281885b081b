/* Frames in and out of a byte stream; see frames.h. */

#include "frames.h"
#include "inside.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

uint32_t read_number(const unsigned char *bytes) {
    uint32_t number;
    memcpy(&number, bytes, sizeof number);
    return ntohl(number);
}

int receive(struct incoming *in, int from) {
    if (in->start > 0) {
        memmove(in->data, in->data + in->start, in->filled - in->start);
        in->filled -= in->start;
        in->start = 0;
    }
    ssize_t size = read(from, in->data + in->filled, sizeof in->data - in->filled);
    if (size > 0)
        in->filled += (size_t)size;
    if (size < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    return size > 0 ? 1 : -1;
}

int take_frame(struct incoming *in, struct frame *out) {
    const unsigned char *header = in->data + in->start;
    if (in->filled - in->start < HEADER)
        return 0;
    *out = (struct frame){read_number(header), read_number(header + 4), read_number(header + 8),
                          in->data + in->start + HEADER};
    if (out->length > MOST_PAYLOAD)
        return -1;
    if (in->filled - in->start < HEADER + out->length)
        return 0;
    in->start += HEADER + out->length;
    return 1;
}

void queue_bytes(struct outgoing *out, const void *bytes, size_t size) {
    if (out->start > 0 && out->filled + size > out->room) {
        memmove(out->data, out->data + out->start, out->filled - out->start);
        out->filled -= out->start;
        out->start = 0;
    }
    if (out->filled + size > out->room) {
        out->room = 2 * (out->filled + size);
        out->data = realloc(out->data, out->room);
        if (!out->data)
            fail("no memory for %zu bytes", out->room);
    }
    memcpy(out->data + out->filled, bytes, size);
    out->filled += size;
}

void queue_frame(struct outgoing *out, uint32_t session, uint32_t kind, const void *payload, size_t size) {
    const uint32_t header[] = {htonl(session), htonl(kind), htonl((uint32_t)size)};
    queue_bytes(out, header, sizeof header);
    if (size > 0)
        queue_bytes(out, payload, size);
}

void queue_number(struct outgoing *out, uint32_t session, uint32_t kind, uint32_t number) {
    uint32_t payload = htonl(number);
    queue_frame(out, session, kind, &payload, sizeof payload);
}

int transmit(struct outgoing *out, int to) {
    while (out->start < out->filled) {
        ssize_t size = write(to, out->data + out->start, out->filled - out->start);
        if (size < 0)
            return errno == EAGAIN || errno == EINTR ? 0 : -1;
        out->start += (size_t)size;
    }
    out->start = out->filled = 0;
    return 0;
}
