/* Questions to the kernel that serves this instance. Each prints one line of JSON.
 *
 * None harms whatever answers: nothing is written, created nodes are removed at once, mounts are made in a
 * mount namespace that ends with its process.
 */

#include "inside.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CALL(name) {#name, SYS_##name}
static const struct {
    const char *name;
    long number;
} calls[] = {
    CALL(acct), CALL(add_key), CALL(adjtimex), CALL(bpf), CALL(chroot), CALL(clock_adjtime), CALL(clock_settime),
    CALL(clone3), CALL(delete_module), CALL(fanotify_init), CALL(finit_module), CALL(fsopen), CALL(getpid),
    CALL(getuid), CALL(inotify_init1), CALL(io_uring_setup), CALL(kcmp), CALL(kexec_load), CALL(keyctl), CALL(kill), CALL(mount),
    CALL(name_to_handle_at), CALL(open_by_handle_at), CALL(perf_event_open), CALL(personality), CALL(pidfd_open),
    CALL(ppoll),
    CALL(pivot_root), CALL(prctl), CALL(process_vm_readv), CALL(ptrace), CALL(quotactl), CALL(reboot),
    CALL(set_mempolicy), CALL(setdomainname), CALL(sethostname), CALL(setns), CALL(setpriority), CALL(settimeofday),
    CALL(socket), CALL(swapoff), CALL(swapon), CALL(syslog), CALL(umount2), CALL(unshare), CALL(userfaultfd),
#ifdef SYS_ioperm /* on x86 alone; elsewhere a call that no kernel has: ENOSYS */
    CALL(ioperm),
#else
    {"ioperm", -1},
#endif
};

static long call_number(const char *name) {
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
        if (strcmp(calls[i].name, name) == 0)
            return calls[i].number;
    return (long)number(name);
}

static int hexadecimal_digit(char letter) {
    if (!isxdigit((unsigned char)letter))
        fail("call: %c is not a hexadecimal digit", letter);
    return isdigit((unsigned char)letter) ? letter - '0' : tolower((unsigned char)letter) - 'a' + 10;
}

/* 12 | -1 | 0x10   the number itself;   s:TEXT   a string;   z:SIZE   zeros;   x:HEX   these bytes */
static long call_argument(const char *text) {
    if (strncmp(text, "s:", 2) == 0)
        return (long)(text + 2);
    if (strncmp(text, "z:", 2) == 0)
        return (long)calloc(1, (size_t)number(text + 2));
    if (strncmp(text, "x:", 2) != 0)
        return (long)number(text);
    size_t size = strlen(text + 2) / 2;
    unsigned char *bytes = calloc(1, size + 1);
    for (size_t i = 0; bytes && i < size; i++)
        bytes[i] = (unsigned char)(hexadecimal_digit(text[2 + 2 * i]) << 4 | hexadecimal_digit(text[3 + 2 * i]));
    return (long)bytes;
}

static int answer(long result) {
    printf("{");
    print_outcome(result);
    printf("}\n");
    return 0;
}

/* call NAME|NUMBER [ARGUMENT…]: one raw system call. */
int make_call(int count, char **arguments) {
    long values[6] = {0};
    if (count < 2 || count > 8)
        fail("call: expected NAME|NUMBER and up to 6 arguments");
    for (int i = 2; i < count; i++)
        values[i - 2] = call_argument(arguments[i]);
    errno = 0;
    return answer(syscall(call_number(arguments[1]), values[0], values[1], values[2], values[3], values[4], values[5]));
}

/* open PATH read|write|both: opens and closes an existing path; never creates, truncates, blocks or writes. */
int open_path(int count, char **arguments) {
    if (count != 3)
        fail("open: expected PATH read|write|both");
    int access = strcmp(arguments[2], "read") == 0    ? O_RDONLY
                 : strcmp(arguments[2], "write") == 0 ? O_WRONLY
                                                      : O_RDWR;
    errno = 0;
    return answer(open(arguments[1], access | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
}

/* read PATH [MAXIMUM]: the first bytes of a file as text, 4096 unless told. */
int read_path(int count, char **arguments) {
    if (count < 2 || count > 3)
        fail("read: expected PATH [MAXIMUM]");
    size_t room = count == 3 ? (size_t)number(arguments[2]) : 4096, filled = 0;
    char *buffer = malloc(room + 1);
    errno = 0;
    int fd = open(arguments[1], O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    ssize_t size = fd < 0 || !buffer ? -1 : 0;
    while (size >= 0 && filled < room && (size = read(fd, buffer + filled, room - filled)) > 0)
        filled += (size_t)size;
    printf("{");
    print_outcome(size < 0 ? -1 : (long)filled);
    printf(", \"text\": ");
    print_string(buffer, filled);
    printf("}\n");
    return 0;
}

/* boot: which boot of which kernel answers, by the id that it drew. Where something else is mounted over that file the
 * id is not the kernel's: "masked" says so, and "booted" when the kernel booted, in seconds since the epoch. */
int tell_boot(int count, char **arguments) {
    static const char path[] = "/proc/sys/kernel/random/boot_id";
    char id[64];
    struct statfs where = {0};
    struct timespec now = {0}, up = {0};
    (void)arguments;
    if (count != 1)
        fail("boot: expected nothing else");
    errno = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? -1 : read(fd, id, sizeof id);
    printf("{");
    print_outcome(size);
    printf(", \"text\": ");
    print_string(id, size > 0 ? (size_t)size : 0);
    clock_gettime(CLOCK_REALTIME, &now);
    clock_gettime(CLOCK_BOOTTIME, &up);
    printf(", \"masked\": %s, \"booted\": %.3f}\n",
           fd >= 0 && fstatfs(fd, &where) == 0 && where.f_type != PROC_SUPER_MAGIC ? "true" : "false",
           (double)(now.tv_sec - up.tv_sec) + 1e-9 * (double)(now.tv_nsec - up.tv_nsec));
    return 0;
}

/* stat PATH: type, mode, and the numbers that tell whether two paths are the same thing. */
int stat_path(int count, char **arguments) {
    struct stat found = {0};
    if (count != 2)
        fail("stat: expected PATH");
    errno = 0;
    long result = stat(arguments[1], &found);
    printf("{");
    print_outcome(result);
    printf(", \"mode\": \"%06o\", \"device\": \"%u:%u\", \"inode\": %llu, \"node\": \"%u:%u\", \"size\": %lld}\n",
           found.st_mode, major(found.st_dev), minor(found.st_dev), (unsigned long long)found.st_ino,
           major(found.st_rdev), minor(found.st_rdev), (long long)found.st_size);
    return 0;
}

/* list DIRECTORY: the names in it, unsorted. */
int list_directory(int count, char **arguments) {
    if (count != 2)
        fail("list: expected DIRECTORY");
    errno = 0;
    DIR *stream = opendir(arguments[1]);
    printf("{");
    print_outcome(stream ? 0 : -1);
    printf(", \"names\": [");
    const char *separator = "";
    for (struct dirent *entry; stream && (entry = readdir(stream));) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        printf("%s", separator);
        print_string(entry->d_name, strlen(entry->d_name));
        separator = ", ";
    }
    printf("]}\n");
    return 0;
}

/* namespaces: the inode of each namespace this process is in, namespaces(7). */
int list_namespaces(int count, char **arguments) {
    (void)count, (void)arguments;
    const char *const names[] = {"cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"};
    const char *separator = "";
    printf("{");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[64];
        struct stat found;
        snprintf(path, sizeof path, "/proc/self/ns/%s", names[i]);
        if (stat(path, &found) < 0) /* an older kernel has fewer */
            continue;
        printf("%s\"%s\": %llu", separator, names[i], (unsigned long long)found.st_ino);
        separator = ", ";
    }
    printf("}\n");
    return 0;
}

static int command_line_holds(const char *pid, const char *token) {
    char path[300], buffer[4096];
    snprintf(path, sizeof path, "/proc/%s/cmdline", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t size = read(fd, buffer, sizeof buffer);
    close(fd);
    return size > 0 && memmem(buffer, (size_t)size, token, strlen(token)) != NULL;
}

/* processes [TOKEN]: how many /proc shows, and the pids, at most 8, whose command line holds TOKEN (bar ours). */
int find_processes(int count, char **arguments) {
    errno = 0;
    DIR *stream = opendir("/proc");
    printf("{");
    print_outcome(stream ? 0 : -1);
    printf(", \"found\": [");
    int seen = 0, found = 0;
    for (struct dirent *entry; stream && (entry = readdir(stream));) {
        if (!isdigit((unsigned char)entry->d_name[0]))
            continue;
        seen++;
        pid_t pid = (pid_t)atol(entry->d_name);
        if (count == 2 && found < 8 && pid != getpid() && pid != getppid() &&
            command_line_holds(entry->d_name, arguments[1]))
            printf("%s%d", found++ ? ", " : "", pid);
    }
    printf("], \"count\": %d}\n", seen);
    return 0;
}

/* mount-tmpfs: in a mount namespace of its own where unshare(2) allows one, so that nothing stays; where it
 * does not, a file system type that does not exist: path_mount() in the kernel's fs/namespace.c asks for the
 * privilege before it looks the type up, so ENODEV would mean "allowed". */
int mount_tmpfs(int count, char **arguments) {
    (void)count, (void)arguments;
    errno = 0;
    long isolated = syscall(SYS_unshare, CLONE_NEWNS);
    printf("{\"unshare\": {");
    print_outcome(isolated);
    printf("}, ");
    errno = 0;
    long result = isolated < 0 ? mount("lab", "/", "lab-no-such-type", 0, NULL)
                  : mount("lab", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0
                      ? -1
                      : mount("lab", "/proc", "tmpfs", 0, "size=4k");
    print_outcome(result);
    printf("}\n");
    return 0;
}

static int forbids_devices(const char *directory) {
    struct statvfs found;
    return statvfs(*directory ? directory : "/", &found) == 0 && found.f_flag & ST_NODEV;
}

/* node b|c MAJOR MINOR: can such a device node be made, and then opened for reading? It is removed at once. Where a
 * mount is nodev no node can be opened by anybody, so that those places come last. */
int open_node(int count, char **arguments) {
    const char *const places[] = {"/tmp", "/dev/shm", "/run", "/var/tmp", "", "/dev"};
    if (count != 4)
        fail("node: expected b|c MAJOR MINOR");
    mode_t type = arguments[1][0] == 'b' ? S_IFBLK : S_IFCHR;
    dev_t device = makedev((unsigned)number(arguments[2]), (unsigned)number(arguments[3]));
    char path[64] = "";
    long made = -1;
    for (int nodev = 0; nodev < 2; nodev++)
        for (size_t i = 0; i < sizeof places / sizeof *places && made < 0; i++) {
            if (forbids_devices(places[i]) != nodev)
                continue;
            snprintf(path, sizeof path, "%s/.lab-node-%d", places[i], getpid());
            made = mknod(path, type | 0600, device);
            if (made < 0 && errno != EROFS && errno != ENOENT)
                goto made; /* refused by privilege, not by the place */
        }
made:
    printf("{\"mknod\": {");
    print_outcome(made);
    printf("}, ");
    int fd = made < 0 ? -1 : open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    print_outcome(fd);
    if (made == 0)
        unlink(path);
    printf("}\n");
    return 0;
}

/* release-agent: opens one for writing. Where no v1 hierarchy is mounted it mounts one without controllers, in a mount
 * namespace of its own, with which the hierarchy ends. */
int open_release_agent(int count, char **arguments) {
    const char *const controllers[] = {"memory", "pids", "cpu", "rdma", "systemd"};
    char path[64];
    long fd = -1;
    (void)count, (void)arguments;
    for (size_t i = 0; i < sizeof controllers / sizeof *controllers && fd < 0; i++) {
        snprintf(path, sizeof path, "/sys/fs/cgroup/%s/release_agent", controllers[i]);
        fd = open(path, O_WRONLY | O_CLOEXEC);
    }
    if (fd < 0 && syscall(SYS_unshare, CLONE_NEWNS) == 0 && mount("lab", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
        mount("lab", "/proc", "cgroup", 0, "none,name=lab-probe") == 0)
        fd = open("/proc/release_agent", O_WRONLY | O_CLOEXEC);
    return answer(fd);
}

/* enter PID: join the UTS namespace of a process, setns(2); it ends with this process. */
int enter_namespace(int count, char **arguments) {
    if (count != 2)
        fail("enter: expected PID");
    errno = 0;
    long fd = syscall(SYS_pidfd_open, number(arguments[1]), 0);
    return answer(fd < 0 ? -1 : setns((int)fd, CLONE_NEWUTS));
}

/* clock ID: what it shows and its resolution, clock_gettime(2), by system calls and not by the vDSO. */
int read_clock(int count, char **arguments) {
    struct timespec shown = {0}, resolution = {0};
    if (count != 2)
        fail("clock: expected ID");
    errno = 0;
    long result = syscall(SYS_clock_gettime, number(arguments[1]), &shown);
    if (result == 0)
        result = syscall(SYS_clock_getres, number(arguments[1]), &resolution);
    printf("{");
    print_outcome(result);
    printf(", \"seconds\": %lld.%09ld, \"resolution\": %lld.%09ld}\n", (long long)shown.tv_sec, shown.tv_nsec,
           (long long)resolution.tv_sec, resolution.tv_nsec);
    return 0;
}

/* space PATH: how large the file system there is, and how much of it is free, statfs(2). */
int file_system_space(int count, char **arguments) {
    struct statfs found = {0};
    if (count != 2)
        fail("space: expected PATH");
    errno = 0;
    long result = statfs(arguments[1], &found);
    printf("{");
    print_outcome(result);
    printf(", \"type\": \"0x%lx\", \"bytes\": %llu, \"free\": %llu}\n", (unsigned long)found.f_type,
           (unsigned long long)found.f_blocks * (unsigned long long)found.f_bsize,
           (unsigned long long)found.f_bfree * (unsigned long long)found.f_bsize);
    return 0;
}

/* gain-user PROGRAM: as whom `PROGRAM --help` runs, whose file may be set-user-id: the real and the effective user. Of a
 * process that has ended and was not waited for /proc still tells. */
int gain_user(int count, char **arguments) {
    if (count != 2)
        fail("gain-user: expected PROGRAM");
    int failed[2];
    if (pipe2(failed, O_CLOEXEC) < 0)
        fail("pipe2: %s", strerror(errno));
    pid_t child = fork();
    if (child == 0) {
        int null = open("/dev/null", O_RDWR);
        for (int fd = 0; fd < 3; fd++)
            dup2(null, fd);
        execl(arguments[1], arguments[1], "--help", NULL);
        int error = errno;
        _exit(write(failed[1], &error, sizeof error) != sizeof error);
    }
    close(failed[1]);
    int error = 0;
    siginfo_t ended;
    if (child < 0 || read(failed[0], &error, sizeof error) < 0 || waitid(P_PID, (id_t)child, &ended, WEXITED | WNOWAIT) < 0)
        fail("gain-user: %s", strerror(errno));
    char path[64], line[256];
    unsigned real = 0, effective = 0;
    snprintf(path, sizeof path, "/proc/%d/status", child);
    FILE *status = fopen(path, "re");
    if (!status && !error)
        fail("%s: %s", path, strerror(errno));
    for (int found = 0; status && !found && fgets(line, sizeof line, status);)
        found = sscanf(line, "Uid: %u %u", &real, &effective) == 2;
    waitpid(child, NULL, 0);
    errno = error;
    printf("{");
    print_outcome(error ? -1 : 0);
    printf(", \"real\": %u, \"effective\": %u}\n", real, effective);
    return 0;
}
