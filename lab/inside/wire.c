/* Become a program that has descriptors of somebody who is not its parent.
 *
 *   wire COUNT -- PROGRAM [ARGUMENT…]
 *
 * Standard input is a socket, over which COUNT descriptors come, each in a message of its own. PROGRAM has them as 3, 4
 * and so on, in their order, and /dev/null as standard input.
 */

#include "inside.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FIRST = 3, MOST = 32, NOT_EXECUTABLE = 126, NOT_FOUND = 127 };

int wire(int count, char **arguments) {
    int given[MOST];
    unsigned long long wanted = count > 3 && strcmp(arguments[2], "--") == 0 ? number(arguments[1]) : 0;
    if (wanted < 1 || wanted > MOST)
        fail("wire: expected COUNT -- PROGRAM [ARGUMENT…]");
    for (unsigned each = 0; each < wanted; each++) { /* out of the way of those that are their places to be */
        int descriptor = receive_descriptor(STDIN_FILENO);
        if (descriptor < 0 || (given[each] = fcntl(descriptor, F_DUPFD_CLOEXEC, FIRST + MOST)) < 0)
            fail("wire: descriptor %u of %llu did not come: %s", each + 1, wanted, strerror(errno));
        close(descriptor);
    }
    for (unsigned each = 0; each < wanted; each++)
        if (dup2(given[each], FIRST + (int)each) < 0)
            fail("wire: %s", strerror(errno));
    if (dup2(open("/dev/null", O_RDWR | O_CLOEXEC), STDIN_FILENO) < 0)
        fail("wire: /dev/null: %s", strerror(errno));
    execv(arguments[3], arguments + 3);
    fprintf(stderr, "%s: %s\n", arguments[3], strerror(errno));
    return errno == ENOENT ? NOT_FOUND : NOT_EXECUTABLE;
}
