/* Attempts to get out of a container, each by one verb; the tests run them with a mechanism and without it.
 *
 * Prints "succeeded", or "stopped: NAME" with the errno's name. No attempt harms the host when it succeeds: files of
 * the kernel are opened and not written, calls that would change something get arguments that can't be carried out,
 * and what is made is the caller's own and ends with it. For those calls EINVAL and the like are a success: the
 * kernel has looked at the arguments, so whoever gives right ones is served.
 */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/keyctl.h>
#include <linux/perf_event.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define VERB(name) static long name(char **words)
#define UNUSED (void)words

enum { KERNEL_LOOKED_AT_IT = 0, USER_MODE_ONLY = 1, SOCKETCALL_I386 = 102, SYS_SOCKET_I386 = 1, ALG = 38, VSOCK = 40 };

/* 0 when a call with impossible arguments was refused because of them. */
static long looked_at(long result) {
    static const int about_arguments[] = {EINVAL, ENOENT, ENOEXEC, EFAULT, EBADF, ENOTDIR, ESRCH, ENODEV, ENOTBLK, EBUSY};
    for (size_t i = 0; result < 0 && i < sizeof about_arguments / sizeof *about_arguments; i++)
        if (errno == about_arguments[i])
            return KERNEL_LOOKED_AT_IT;
    return result;
}

/* Files */

VERB(open_to_write) { return open(words[0], O_WRONLY | O_CLOEXEC); }

VERB(read_some) {
    char byte;
    int fd = open(words[0], O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return fd;
    errno = ENODATA;
    return read(fd, &byte, 1) == 1 ? 0 : -1;
}

VERB(list_some) {
    DIR *directory = opendir(words[0]);
    if (!directory)
        return -1;
    for (struct dirent *entry; (entry = readdir(directory));)
        if (entry->d_name[0] != '.')
            return 0;
    errno = ENODATA;
    return -1;
}

VERB(release_agent) { /* words: a v1 controller */
    mkdir("/tmp/group", 0700);
    if (mount("none", "/tmp/group", "cgroup", 0, words[0]) < 0)
        return -1;
    return open("/tmp/group/release_agent", O_WRONLY | O_CLOEXEC);
}

VERB(device) { /* words: b|c, major, minor */
    mode_t kind = words[0][0] == 'b' ? S_IFBLK : S_IFCHR;
    unlink("/tmp/node");
    if (mknod("/tmp/node", kind | 0600, makedev((unsigned)atoi(words[1]), (unsigned)atoi(words[2]))) < 0)
        return -1;
    return open("/tmp/node", O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
}

VERB(by_handle) { /* words: a path on the file system, the handle's type, its bytes in hexadecimal, what is in it */
    struct file_handle *handle = calloc(1, sizeof *handle + 128);
    handle->handle_type = atoi(words[1]);
    for (const char *digits = words[2]; digits[0] && digits[1]; digits += 2) {
        char pair[3] = {digits[0], digits[1], 0};
        handle->f_handle[handle->handle_bytes++] = (unsigned char)strtoul(pair, NULL, 16);
    }
    int mounted = open(words[0], O_RDONLY | O_CLOEXEC);
    int file = mounted < 0 ? -1 : open_by_handle_at(mounted, handle, O_RDONLY);
    if (file < 0)
        return -1;
    char text[64] = "";
    errno = ENODATA;
    return read(file, text, sizeof text - 1) > 0 && strcmp(text, words[3]) == 0 ? 0 : -1;
}

/* Other processes; words[0] is one of the host's */

VERB(signal_process) { return kill(atoi(words[0]), 0); }

VERB(trace_process) {
    pid_t pid = atoi(words[0]);
    long result = ptrace(PTRACE_SEIZE, pid, NULL, NULL);
    return result;
}

VERB(join_mounts) { /* words: a process, a file that only its mounts have */
    char path[64];
    snprintf(path, sizeof path, "/proc/%s/ns/mnt", words[0]);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || setns(fd, CLONE_NEWNS) < 0)
        return -1;
    return access(words[1], F_OK);
}

VERB(root_of_process) { /* words: a process, a file below its root */
    char path[4096];
    snprintf(path, sizeof path, "/proc/%s/root%s", words[0], words[1]);
    return open(path, O_RDONLY | O_CLOEXEC);
}

VERB(watch) { /* words: a file of the host's, the inode of the runtime's program, seconds; of processes that come */
    pid_t known = getpid();
    unsigned long long program = strtoull(words[1], NULL, 10);
    struct timespec begun, now;
    clock_gettime(CLOCK_MONOTONIC, &begun);
    do {
        DIR *directory = opendir("/proc");
        for (struct dirent *entry; directory && (entry = readdir(directory));) {
            char path[4200];
            struct stat found;
            struct statvfs mounted;
            pid_t pid = atoi(entry->d_name);
            if (pid <= 1 || pid == known)
                continue;
            snprintf(path, sizeof path, "/proc/%d/root%s", pid, words[0]);
            if (access(path, F_OK) == 0)
                return 0;
            snprintf(path, sizeof path, "/proc/%d/exe", pid);
            int fd = open(path, O_RDONLY | O_CLOEXEC);
            if (fd >= 0 && fstat(fd, &found) == 0 && found.st_ino == program && fstatvfs(fd, &mounted) == 0 &&
                !(mounted.f_flag & ST_RDONLY))
                return 0;
            if (fd >= 0)
                close(fd);
        }
        if (directory)
            closedir(directory);
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while (now.tv_sec - begun.tv_sec < atoi(words[2]));
    errno = ENOENT;
    return -1;
}

/* Whether it holds CAP_SYS_MODULE, which the containers of the tests never do; another way than tracing tells as well. */
static int is_mighty(pid_t pid) {
    char path[64], line[256];
    unsigned long long permitted = 0;
    snprintf(path, sizeof path, "/proc/%d/status", pid);
    FILE *status = fopen(path, "re");
    while (status && fgets(line, sizeof line, status))
        if (sscanf(line, "CapPrm: %llx", &permitted) == 1)
            break;
    if (status)
        fclose(status);
    return permitted >> 16 & 1;
}

VERB(seize) { /* words: seconds; trace a process that comes, while it has more power than it is going to have */
    pid_t known = getpid();
    struct timespec begun, now;
    clock_gettime(CLOCK_MONOTONIC, &begun);
    do {
        DIR *directory = opendir("/proc");
        for (struct dirent *entry; directory && (entry = readdir(directory));) {
            pid_t pid = atoi(entry->d_name);
            if (pid <= 1 || pid == known || ptrace(PTRACE_SEIZE, pid, NULL, NULL) < 0)
                continue;
            int mighty = is_mighty(pid);
            ptrace(PTRACE_INTERRUPT, pid, NULL, NULL);
            waitpid(pid, NULL, __WALL);
            mighty = mighty && is_mighty(pid);
            ptrace(PTRACE_DETACH, pid, NULL, NULL);
            if (mighty)
                return 0;
        }
        if (directory)
            closedir(directory);
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while (now.tv_sec - begun.tv_sec < atoi(words[0]));
    errno = ESRCH;
    return -1;
}

VERB(own_child) { /* what Docker's defaults leave: tracing a process of one's own */
    UNUSED;
    pid_t child = fork();
    if (child == 0) {
        pause();
        _exit(0);
    }
    long result = ptrace(PTRACE_SEIZE, child, NULL, NULL);
    int error = errno;
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    errno = error;
    return result;
}

VERB(abstract_socket) { /* words: its name */
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = strlen(words[0]);
    memcpy(address.sun_path + 1, words[0], length);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return connect(fd, (struct sockaddr *)&address, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + length));
}

VERB(type_ahead) { return UNUSED, ioctl(STDIN_FILENO, TIOCSTI, "x"); }

/* Descriptors: any that is open besides the first three */

VERB(leaked_descriptor) {
    UNUSED;
    for (int fd = 3; fd < 4096; fd++)
        if (fcntl(fd, F_GETFD) >= 0)
            return 0;
    errno = EBADF;
    return -1;
}

VERB(climb) { /* words: a file of the host's; from the working directory and every descriptor up to the real root */
    for (int fd = 2; fd < 4096; fd++) {
        if (fd > 2 && fchdir(fd) < 0)
            continue;
        for (int up = 0; up < 64; up++)
            if (chdir("..") < 0)
                break;
        if (access(words[0] + 1, F_OK) == 0)
            return 0;
    }
    errno = ENOENT;
    return -1;
}

VERB(leave_chroot) { /* words: a file of the host's; chroot(2), NOTES: root can leave one, if it is no more than that */
    mkdir("/tmp/deeper", 0700);
    if (chroot("/tmp/deeper") < 0)
        return -1;
    for (int up = 0; up < 64; up++)
        if (chdir("..") < 0)
            return -1;
    return access(words[0] + 1, F_OK);
}

/* Namespaces and mounts */

VERB(unshare_users) { return UNUSED, unshare(CLONE_NEWUSER); }
VERB(unshare_mounts) { return UNUSED, unshare(CLONE_NEWNS); }

static long born(long child) {
    if (child == 0)
        _exit(0);
    if (child > 0)
        waitpid((pid_t)child, NULL, 0);
    return child;
}

VERB(clone_users) { return UNUSED, born(syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0)); }

VERB(clone3_users) {
    UNUSED;
    uint64_t arguments[8] = {[0] = CLONE_NEWUSER, [4] = SIGCHLD};
    return born(syscall(SYS_clone3, arguments, sizeof arguments));
}

VERB(mount_tmpfs) { return UNUSED, mount("none", "/tmp", "tmpfs", 0, "size=4k"); }
VERB(open_file_system) { return UNUSED, syscall(SYS_fsopen, "tmpfs", 1); }
VERB(copy_mounts) { return UNUSED, syscall(SYS_open_tree, AT_FDCWD, "/", 1 /* OPEN_TREE_CLONE */); }
VERB(make_writable) { return UNUSED, mount("none", "/proc/sys", NULL, MS_REMOUNT | MS_BIND, NULL); }
VERB(unmask) { return UNUSED, umount2("/proc/interrupts", MNT_DETACH); }
VERB(swap_roots) { return UNUSED, looked_at(syscall(SYS_pivot_root, "/tmp", "/tmp")); }
VERB(name_host) { return UNUSED, sethostname("other", 5); }

/* What the kernel offers besides */

VERB(fault_handler) { return UNUSED, syscall(SYS_userfaultfd, O_CLOEXEC | USER_MODE_ONLY); }
VERB(fault_handler_of_kernel) { return UNUSED, syscall(SYS_userfaultfd, O_CLOEXEC); }
VERB(session_keyring) {
    UNUSED;
    return syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0);
}
VERB(find_session_key) { /* words: its description */
    return syscall(SYS_keyctl, KEYCTL_SEARCH, KEY_SPEC_SESSION_KEYRING, "user", words[0], 0);
}
VERB(add_key) {
    UNUSED;
    return syscall(SYS_add_key, "user", "lab-test", "x", 1, KEY_SPEC_PROCESS_KEYRING);
}
VERB(request_key) {
    UNUSED;
    long result = syscall(SYS_request_key, "user", "lab-test-no-such-key", NULL, 0);
    return result < 0 && errno == ENOKEY ? KERNEL_LOOKED_AT_IT : result;
}
VERB(bpf_map) {
    UNUSED;
    uint32_t attributes[32] = {2 /* an array */, 4, 4, 1};
    return syscall(SYS_bpf, 0 /* BPF_MAP_CREATE */, attributes, sizeof attributes);
}
VERB(bpf_program) {
    UNUSED;
    static const uint64_t code[] = {0xb7, 0x95}; /* r0 = 0; exit */
    struct {
        uint32_t type, count;
        uint64_t code, license;
        uint64_t rest[12];
    } attributes = {5 /* a tracepoint's */, 2, (uintptr_t)code, (uintptr_t) "GPL", {0}};
    return syscall(SYS_bpf, 5 /* BPF_PROG_LOAD */, &attributes, sizeof attributes);
}
VERB(io_ring) {
    UNUSED;
    unsigned char parameters[120] = {0};
    return syscall(SYS_io_uring_setup, 1, parameters);
}
VERB(perf_of_kernel) {
    UNUSED;
    struct perf_event_attr attributes = {.type = PERF_TYPE_SOFTWARE, .size = sizeof attributes};
    return syscall(SYS_perf_event_open, &attributes, -1, 0, -1, 0); /* of all processes on a processor */
}
VERB(io_ports) { return UNUSED, syscall(SYS_iopl, 3); }
VERB(kernel_log) { return UNUSED, looked_at(syscall(SYS_syslog, 8 /* the console's level */, NULL, 0)); }
VERB(watch_mount) { return UNUSED, fanotify_init(FAN_CLASS_CONTENT, O_RDONLY); }
VERB(no_randomisation) { return UNUSED, personality(ADDR_NO_RANDOMIZE); }
VERB(memory_policy) { return UNUSED, syscall(SYS_set_mempolicy, 0, NULL, 0); }
VERB(compare_processes) { return UNUSED, syscall(SYS_kcmp, getpid(), getpid(), 0, 0, 0); }
VERB(descriptor_of_process) {
    UNUSED;
    return syscall(SYS_pidfd_getfd, syscall(SYS_pidfd_open, getpid(), 0), STDOUT_FILENO, 0);
}
VERB(new_kernel) { return UNUSED, looked_at(syscall(SYS_kexec_load, 0, 1, NULL, ~0UL)); }
VERB(module) { return UNUSED, looked_at(syscall(SYS_finit_module, -1, "", 0)); }
VERB(reboot_host) { return UNUSED, looked_at(syscall(SYS_reboot, 0, 0, 0, NULL)); }
VERB(exchange) { /* words: two names, as fast as it can; ends with whoever started it */
    while (syscall(SYS_renameat2, AT_FDCWD, words[0], AT_FDCWD, words[1], 2 /* RENAME_EXCHANGE */) == 0)
        ;
    return -1;
}

VERB(swap_on) { return UNUSED, looked_at(syscall(SYS_swapon, "/no/such/file", 0)); }
VERB(accounting) { return UNUSED, looked_at(syscall(SYS_acct, "/no/such/file")); }
VERB(quota) { return UNUSED, looked_at(syscall(SYS_quotactl, 0x80000700 /* Q_GETQUOTA */, "/no/such", 0, NULL)); }

/* A family that this kernel does not have, it would have served. */
static long family(long result) { return result < 0 && errno == EAFNOSUPPORT ? KERNEL_LOOKED_AT_IT : result; }

VERB(socket_of_family) { return family(socket(atoi(words[0]), SOCK_SEQPACKET, 0)); }

VERB(socket_by_32_bits) { /* words: the family; the same kernel answers i386's calls, for every program */
#ifdef __x86_64__
    unsigned int *arguments = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    long result = SOCKETCALL_I386;
    arguments[0] = (unsigned)atoi(words[0]), arguments[1] = SOCK_SEQPACKET, arguments[2] = 0;
    __asm__ volatile("int $0x80"
                     : "+a"(result)
                     : "b"(SYS_SOCKET_I386), "c"((unsigned)(uintptr_t)arguments)
                     : "memory", "r8", "r9", "r10", "r11");
    if ((int)result < 0) {
        errno = -(int)result;
        return family(-1);
    }
    return 0;
#else
    UNUSED;
    errno = ENOSYS;
    return -1;
#endif
}

#define LISTED(name) {#name, name}
static const struct {
    const char *name;
    long (*attempt)(char **words);
} verbs[] = {
    LISTED(open_to_write), LISTED(read_some), LISTED(list_some), LISTED(release_agent), LISTED(device),
    LISTED(by_handle), LISTED(signal_process), LISTED(trace_process), LISTED(join_mounts), LISTED(root_of_process),
    LISTED(watch), LISTED(seize), LISTED(own_child), LISTED(abstract_socket), LISTED(type_ahead), LISTED(leaked_descriptor), LISTED(climb),
    LISTED(leave_chroot), LISTED(unshare_users), LISTED(unshare_mounts), LISTED(clone_users), LISTED(clone3_users),
    LISTED(mount_tmpfs), LISTED(open_file_system), LISTED(copy_mounts), LISTED(make_writable), LISTED(unmask),
    LISTED(swap_roots), LISTED(name_host), LISTED(fault_handler), LISTED(fault_handler_of_kernel),
    LISTED(session_keyring), LISTED(find_session_key), LISTED(add_key), LISTED(request_key), LISTED(bpf_map), LISTED(bpf_program),
    LISTED(io_ring), LISTED(perf_of_kernel), LISTED(io_ports), LISTED(kernel_log), LISTED(watch_mount),
    LISTED(no_randomisation), LISTED(memory_policy), LISTED(compare_processes), LISTED(descriptor_of_process),
    LISTED(new_kernel), LISTED(module), LISTED(reboot_host), LISTED(swap_on), LISTED(exchange), LISTED(accounting), LISTED(quota),
    LISTED(socket_of_family), LISTED(socket_by_32_bits),
};

int main(int count, char **arguments) {
    for (size_t i = 0; count > 1 && i < sizeof verbs / sizeof *verbs; i++)
        if (strcmp(verbs[i].name, arguments[1]) == 0) {
            if (verbs[i].attempt(arguments + 2) >= 0)
                puts("succeeded");
            else
                printf("stopped: %s\n", strerrorname_np(errno));
            return 0;
        }
    fprintf(stderr, "no such attempt\n");
    return 2;
}
