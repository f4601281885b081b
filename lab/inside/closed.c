/* A place where nothing is allowed: the negative control of the isolation probes. What says "yes" here too, says
 * it always.
 */

#include "inside.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x00000080
#endif

enum { HIGHEST_CAPABILITY = 63, DAYS_10 = 864000, FEW_FILES = 64 };

/* What a process without any privilege may do, too, and some probe asks for. */
static const int refused[] = {
    SYS_add_key, SYS_bpf, SYS_clock_getres, SYS_clock_gettime, SYS_fanotify_init, SYS_inotify_init1, SYS_io_uring_setup, SYS_keyctl,
    SYS_perf_event_open, SYS_personality, SYS_set_mempolicy, SYS_shmat, SYS_socket, SYS_unshare, SYS_userfaultfd,
};

void must(int result, const char *what) {
    if (result < 0)
        fail("%s: %s", what, strerror(errno));
}

void put_text(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        fail("%s: %s", path, strerror(errno));
    close(fd);
}

/* A root of its own with nothing but this program, a copy, and a /proc that shows processes alone. */
static void hide_files(void) {
    struct stat found;
    int self = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    must(self, "/proc/self/exe");
    must(fstat(self, &found), "fstat");
    must(mount("lab", "/", NULL, MS_REC | MS_PRIVATE, NULL), "private mounts");
    must(mount("lab", "/proc", "tmpfs", MS_NOSUID | MS_NODEV, "size=16m,mode=755"), "tmpfs");
    int copy = open("/proc/inside", O_WRONLY | O_CREAT | O_CLOEXEC, 0755);
    must(copy, "/proc/inside");
    for (off_t offset = 0; offset < found.st_size;)
        must((int)sendfile(copy, self, &offset, 1 << 20), "sendfile");
    close(copy), close(self);
    must(mkdir("/proc/proc", 0755), "mkdir");
    must(mount("proc", "/proc/proc", "proc", MS_NOSUID | MS_NODEV, "subset=pid"), "proc");
    must(chdir("/proc"), "chdir");
    must((int)syscall(SYS_pivot_root, ".", "."), "pivot_root");
    must(umount2(".", MNT_DETACH), "umount");
    must(chdir("/"), "chdir");
}

static void refuse_calls(void) {
    enum { CALLS = sizeof refused / sizeof *refused };
    struct sock_filter filter[CALLS + 3] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr))};
    for (unsigned i = 0; i < CALLS; i++)
        filter[1 + i] =
            (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)refused[i], (unsigned char)(CALLS - i), 0);
    filter[CALLS + 1] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    filter[CALLS + 2] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
    struct sock_fprog program = {CALLS + 3, filter};
    must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
    must(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), "seccomp");
}

static void drop_capabilities(void) {
    for (int capability = 0; capability <= HIGHEST_CAPABILITY; capability++)
        if (prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0 && errno != EINVAL) /* EINVAL: there are not so many */
            fail("closed: PR_CAPBSET_DROP: %s", strerror(errno));
}

/* closed: batch, in namespaces of its own, without files, capabilities and the calls above. */
int closed(int count, char **arguments) {
    (void)count, (void)arguments;
    char clocks[64];
    must(unshare(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET | CLONE_NEWCGROUP), "unshare");
    if (unshare(CLONE_NEWTIME) == 0) { /* since Linux 5.6 */
        snprintf(clocks, sizeof clocks, "monotonic %d 0\nboottime %d 0\n", DAYS_10, DAYS_10);
        put_text("/proc/self/timens_offsets", clocks);
    }
    pid_t child = fork();
    must(child, "fork");
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        hide_files();
        must(unshare(CLONE_NEWUSER), "user namespace");
        put_text("/proc/self/uid_map", "0 0 1\n");
        drop_capabilities();
        const struct rlimit few = {FEW_FILES, FEW_FILES};
        must(setrlimit(RLIMIT_NOFILE, &few), "RLIMIT_NOFILE");
        refuse_calls();
        execl("/inside", "inside", "batch", NULL);
        fail("closed: execve: %s", strerror(errno));
    }
    int status;
    must(waitpid(child, &status, 0), "waitpid");
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
