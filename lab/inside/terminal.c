/* A pseudo-terminal for a program inside: made by the program's own process, in the instance's own devpts.
 *
 * Source: pty(7), ioctl_tty(2), unix(7) for SCM_RIGHTS.
 */

#include "inside.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

struct winsize parse_size(const char *text) {
    char *rest;
    unsigned long rows = strtoul(text, &rest, 10), columns = *rest == 'x' ? strtoul(rest + 1, &rest, 10) : 0;
    if (*rest || !strchr(text, 'x') || rows > UINT16_MAX || columns > UINT16_MAX)
        fail("%s is not ROWSxCOLUMNS", text);
    return (struct winsize){.ws_row = (unsigned short)rows, .ws_col = (unsigned short)columns};
}

/* Send descriptor to whoever holds the other end of the socket. */
static int send_descriptor(int to, int descriptor) {
    char byte = 0;
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec data = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    control.header = (struct cmsghdr){
        .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(&control.header), &descriptor, sizeof descriptor);
    return sendmsg(to, &message, MSG_NOSIGNAL) == 1 ? 0 : -1;
}

int receive_descriptor(int from) {
    char byte;
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec data = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    int descriptor = -1;
    if (recvmsg(from, &message, MSG_CMSG_CLOEXEC) == 1 && control.header.cmsg_type == SCM_RIGHTS &&
        control.header.cmsg_len == CMSG_LEN(sizeof(int)))
        memcpy(&descriptor, CMSG_DATA(&control.header), sizeof descriptor);
    return descriptor;
}

/* By the peer's own descriptor (TIOCGPTPEER, Linux 4.13): a path could be somebody else's by now. The caller
 * leads a session without a terminal. */
int take_terminal(struct winsize size) {
    int unlocked = 0, master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (master < 0)
        return -1;
    int terminal = -1;
    if (ioctl(master, TIOCSPTLCK, &unlocked) == 0)
        terminal = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    int result = -1;
    if (terminal >= 0 && ioctl(master, TIOCSWINSZ, &size) == 0 && send_descriptor(STDIN_FILENO, master) == 0 &&
        ioctl(terminal, TIOCSCTTY, 0) == 0 && dup2(terminal, STDIN_FILENO) >= 0 &&
        dup2(terminal, STDOUT_FILENO) >= 0 && dup2(terminal, STDERR_FILENO) >= 0)
        result = 0;
    int error = errno;
    close(master);
    if (terminal >= 0)
        close(terminal);
    errno = error;
    return result;
}
