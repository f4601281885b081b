/* An application's output, from the pipes that it writes to, on to the host.
 *
 *   relay OUTPUT ERRORS OUTPUT-PORT ERRORS-PORT
 *
 * OUTPUT and ERRORS are FIFOs: a port opens only once, but /dev/stdout may be opened again. It ends once nobody holds
 * either of them open any more; SIGTERM ends it before that, when what they hold by then has been passed on. A host
 * that is slow to take it is waited for. Then it prints two numbers: the bytes passed on, of the one and of the other.
 * By these the host knows when it has all bytes, which wait in queues that nobody in here can look into.
 */

#include "inside.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

enum { CHUNK = 1 << 14 };

/* Pass on one chunk, of at most so many bytes; how many there were, 0 at the end of the file or of the port. */
static size_t pass(struct relayed *one, size_t most) {
    char chunk[CHUNK];
    ssize_t size = read(one->from, chunk, most < sizeof chunk ? most : sizeof chunk);
    if (size < 0)
        return errno == EAGAIN || errno == EINTR ? 1 : 0;
    for (ssize_t done = 0, more; done < size; done += more) {
        more = write(one->to, chunk + done, (size_t)(size - done));
        if (more < 0 && errno != EINTR)
            return 0;
        more = more < 0 ? 0 : more;
        one->passed += (uint64_t)more;
    }
    return (size_t)size;
}

/* What a pipe holds now, and no more: a process that outlives the application may write on for ever. */
static void pass_the_rest(struct relayed *one) {
    int left;
    if (one->from >= 0 && ioctl(one->from, FIONREAD, &left) == 0)
        for (size_t size; left > 0 && (size = pass(one, (size_t)left)) > 0; left -= (int)size)
            continue;
}

void relay_all(struct relayed both[OUTPUTS]) {
    sigset_t asked;
    sigemptyset(&asked);
    sigaddset(&asked, SIGTERM);
    sigprocmask(SIG_BLOCK, &asked, NULL);
    struct pollfd ready[OUTPUTS + 1] = {{.fd = both[0].from, .events = POLLIN},
                                        {.fd = both[1].from, .events = POLLIN},
                                        {.fd = signalfd(-1, &asked, SFD_CLOEXEC), .events = POLLIN}};
    while (ready[0].fd >= 0 || ready[1].fd >= 0) {
        if (poll(ready, OUTPUTS + 1, -1) < 0 && errno != EINTR)
            return;
        if (ready[OUTPUTS].revents)
            break;
        for (int each = 0; each < OUTPUTS; each++)
            if (ready[each].fd >= 0 && ready[each].revents && pass(&both[each], CHUNK) == 0)
                ready[each].fd = both[each].from = -1;
    }
    for (int each = 0; each < OUTPUTS; each++)
        pass_the_rest(&both[each]);
}

int relay(int count, char **arguments) {
    struct relayed both[OUTPUTS] = {0};
    if (count != 1 + 2 * OUTPUTS)
        fail("relay: expected OUTPUT ERRORS OUTPUT-PORT ERRORS-PORT");
    signal(SIGPIPE, SIG_IGN);
    for (int each = 0; each < OUTPUTS; each++) {
        both[each].from = open(arguments[1 + each], O_RDONLY | O_NONBLOCK | O_CLOEXEC); /* before who writes to it */
        both[each].to = open(arguments[1 + OUTPUTS + each], O_WRONLY | O_CLOEXEC);
        if (both[each].from < 0 || both[each].to < 0)
            fail("relay: %s: %s", arguments[1 + each], strerror(errno));
    }
    relay_all(both);
    printf("%llu %llu\n", (unsigned long long)both[0].passed, (unsigned long long)both[1].passed);
    return 0;
}
