/* Where somebody stands who has broken out of an ordinary user's container: no namespace, no root directory, no filter and
 * no missing capability confine it any more. Only the user namespace is left, which nobody can leave (setns(2) into
 * another one wants a capability there): to the host's kernel it is that user, and its capabilities count in there alone.
 */

#include "inside.h"

#include <errno.h>
#include <grp.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

/* broken-out UID: batch, as root of a user namespace that is that user, in all other namespaces of the caller, who is
 * root. */
int broken_out(int count, char **arguments) {
    char map[32];
    if (count != 2)
        fail("broken-out: expected UID");
    uid_t user = (uid_t)number(arguments[1]);
    if (user == 0)
        fail("broken-out: root is no ordinary user");
    must(setgroups(0, NULL), "setgroups");
    must(setresgid(user, user, user), "setresgid");
    must(setresuid(user, user, user), "setresuid");
    must(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0), "PR_SET_DUMPABLE"); /* else root owns its /proc/self (prctl(2)) */
    must(unshare(CLONE_NEWUSER), "user namespace");
    snprintf(map, sizeof map, "0 %u 1\n", (unsigned)user);
    put_text("/proc/self/setgroups", "deny");
    put_text("/proc/self/uid_map", map);
    put_text("/proc/self/gid_map", map);
    execl("/proc/self/exe", "inside", "batch", NULL);
    fail("execve: %s", strerror(errno));
}
