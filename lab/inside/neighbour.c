/* A process of the host for an instance to look for, and the verbs that look. */

#include "inside.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { SEGMENT_BYTES = 4096, LONGEST_TOKEN = 100, PATIENCE_SECONDS = 2 };

union address {
    struct sockaddr any;
    struct sockaddr_un abstract;
    struct sockaddr_in internet;
};

/* @NAME an abstract socket, unix(7); PORT of the loopback otherwise. */
static socklen_t parse_address(const char *text, union address *address) {
    memset(address, 0, sizeof *address);
    if (text[0] == '@') {
        size_t length = strnlen(text + 1, LONGEST_TOKEN);
        address->abstract.sun_family = AF_UNIX;
        memcpy(address->abstract.sun_path + 1, text + 1, length);
        return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + length);
    }
    address->internet.sin_family = AF_INET;
    address->internet.sin_port = htons((uint16_t)number(text));
    address->internet.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return sizeof address->internet;
}

static int listen_at(const char *text) {
    union address address;
    socklen_t size = parse_address(text, &address);
    int fd = socket(address.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, &address.any, size) < 0 || listen(fd, 4) < 0)
        fail("hold: %s: %s", text, strerror(errno));
    return fd;
}

/* The segment is marked as gone at once, so that it ends with this process; shmat(2) by its id works till then. */
static int share(const char *token) {
    int id = shmget(IPC_PRIVATE, SEGMENT_BYTES, 0600);
    char *memory = id < 0 ? NULL : shmat(id, NULL, 0);
    if (!memory || memory == (char *)-1 || shmctl(id, IPC_RMID, NULL) < 0)
        return -1;
    strncpy(memory, token, LONGEST_TOKEN);
    return id;
}

/* hold TOKEN: until standard input ends, tell TOKEN to whoever connects to the abstract socket of that name or to a
 * port of the loopback, and keep it in shared memory. Prints the port and the memory's id (-1: none). */
int hold(int count, char **arguments) {
    if (count != 2 || strlen(arguments[1]) > LONGEST_TOKEN)
        fail("hold: expected TOKEN");
    char name[LONGEST_TOKEN + 2], nothing;
    snprintf(name, sizeof name, "@%s", arguments[1]);
    struct pollfd watched[] = {{STDIN_FILENO, POLLIN, 0}, {listen_at(name), POLLIN, 0}, {listen_at("0"), POLLIN, 0}};
    union address bound;
    socklen_t size = sizeof bound;
    getsockname(watched[2].fd, &bound.any, &size);
    printf("{\"port\": %d, \"shared_memory\": %d}\n", ntohs(bound.internet.sin_port), share(arguments[1]));
    fflush(stdout);
    while (poll(watched, 3, -1) > 0) {
        if (watched[0].revents && read(STDIN_FILENO, &nothing, 1) <= 0)
            break;
        for (int i = 1; i < 3; i++) {
            int fd = watched[i].revents ? accept4(watched[i].fd, NULL, NULL, SOCK_CLOEXEC) : -1;
            if (fd >= 0) {
                send(fd, arguments[1], strlen(arguments[1]), MSG_NOSIGNAL);
                close(fd);
            }
        }
    }
    return 0;
}

static int told(long result, const char *text, size_t size) {
    printf("{");
    print_outcome(result);
    printf(", \"text\": ");
    print_string(text, size);
    printf("}\n");
    return 0;
}

/* greet @NAME|PORT: connect to an abstract socket, or to the loopback; what the other side says. */
int greet(int count, char **arguments) {
    union address address;
    char text[LONGEST_TOKEN];
    if (count != 2)
        fail("greet: expected @NAME|PORT");
    socklen_t size = parse_address(arguments[1], &address);
    const struct timeval patience = {.tv_sec = PATIENCE_SECONDS};
    errno = 0;
    int fd = socket(address.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    ssize_t got = fd < 0 || connect(fd, &address.any, size) < 0 ? -1 : recv(fd, text, sizeof text, 0);
    return told(got, text, got > 0 ? (size_t)got : 0);
}

/* shared-memory ID: attach a System V segment for reading; how it begins. */
int read_shared_memory(int count, char **arguments) {
    if (count != 2)
        fail("shared-memory: expected ID");
    errno = 0;
    const char *memory = shmat((int)number(arguments[1]), NULL, SHM_RDONLY);
    int failed = memory == (const char *)-1;
    return told(failed ? -1 : 0, memory, failed ? 0 : strnlen(memory, LONGEST_TOKEN));
}
