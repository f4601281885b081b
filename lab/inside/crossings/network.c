/* Crossings of the instance's own network stack: TCP from 127.0.0.1 to 127.0.0.1, between two processes that share one
 * processor. */

#include "crossings.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MIB = 1 << 20, CHUNK = 1 << 17 };

/* A connection to a child that runs ``serve`` on its other end. */
static int connected(void (*serve)(int fd)) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int on = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener < 0)
        absent("socket", errno);
    if (bind(listener, (struct sockaddr *)&address, size) < 0 || listen(listener, 1) < 0 ||
        getsockname(listener, (struct sockaddr *)&address, &size) < 0)
        absent("listen on 127.0.0.1", errno);
    pin_to_one();
    if (born() == 0) {
        int fd = accept(listener, NULL, NULL);
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        serve(fd);
        _exit(0);
    }
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, size) < 0)
        absent("connect to 127.0.0.1", errno);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    close(listener);
    return fd;
}

static void echo(int fd) {
    char byte;
    while (read(fd, &byte, 1) == 1 && write(fd, &byte, 1) == 1)
        ;
}

static uint64_t round_trips(void *context, uint64_t times) {
    char byte = 0;
    uint64_t began = nanoseconds();
    for (uint64_t i = 0; i < times; i++) {
        pass(*(int *)context, &byte);
        take(*(int *)context, &byte);
    }
    return nanoseconds() - began;
}
static void round_trip(void) {
    int fd = connected(echo);
    measure(round_trips, &fd, 1);
}

static int read_whole(int fd, char *place, size_t size) {
    for (size_t got = 0; got < size;) {
        ssize_t more = read(fd, place + got, size - got);
        if (more <= 0)
            return -1;
        got += (size_t)more;
    }
    return 0;
}

/* How many bytes come is said before them; that all are here, after. */
static void swallow(int fd) {
    char *chunk = malloc(CHUNK), done = 1;
    uint64_t coming = 0;
    while (chunk && read_whole(fd, (char *)&coming, sizeof coming) == 0) {
        while (coming > 0) {
            ssize_t got = read(fd, chunk, CHUNK);
            if (got <= 0)
                return;
            coming -= (uint64_t)got;
        }
        if (write(fd, &done, 1) != 1)
            return;
    }
}

static uint64_t mebibytes(void *context, uint64_t times) {
    static char chunk[CHUNK];
    int fd = *(int *)context;
    char done;
    uint64_t coming = times * MIB, began = nanoseconds();
    if (write(fd, &coming, sizeof coming) != sizeof coming)
        absent("write", errno);
    while (coming > 0) {
        ssize_t sent = write(fd, chunk, coming < CHUNK ? (size_t)coming : CHUNK);
        if (sent < 0)
            absent("write", errno);
        coming -= (uint64_t)sent;
    }
    take(fd, &done);
    return nanoseconds() - began;
}
static void stream(void) {
    int fd = connected(swallow);
    measure(mebibytes, &fd, 1);
}

const struct named network_crossings[] = {{"tcp", round_trip}, {"tcp_stream", stream}, {NULL, NULL}};
