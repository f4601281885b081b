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

static _Noreturn void become_batch(void) {
    execl("/proc/self/exe", "inside", "batch", NULL);
    fail("execve: %s", strerror(errno));
}

/* For good, with no other group; returns who. */
static uid_t leave_root(int count, char **arguments) {
    if (count != 2)
        fail("%s: expected UID", arguments[0]);
    uid_t user = (uid_t)number(arguments[1]);
    if (user == 0)
        fail("%s: root is no ordinary user", arguments[0]);
    must(setgroups(0, NULL), "setgroups");
    must(setresgid(user, user, user), "setresgid");
    must(setresuid(user, user, user), "setresuid");
    must(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0), "PR_SET_DUMPABLE"); /* else root owns its /proc/self (prctl(2)) */
    return user;
}

/* as-user UID: batch, as that user, in no namespace of its own. */
int as_user(int count, char **arguments) {
    leave_root(count, arguments);
    become_batch();
}

/* broken-out UID: batch, as root of a user namespace that is that user, in all other namespaces of the caller, who is
 * root. */
int broken_out(int count, char **arguments) {
    char map[32];
    uid_t user = leave_root(count, arguments);
    must(unshare(CLONE_NEWUSER), "user namespace");
    snprintf(map, sizeof map, "0 %u 1\n", (unsigned)user);
    put_text("/proc/self/setgroups", "deny");
    put_text("/proc/self/uid_map", map);
    put_text("/proc/self/gid_map", map);
    become_batch();
}
