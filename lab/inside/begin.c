/* begin: bear containers for lab's launcher, which is a Python interpreter and takes long to copy.
 *
 * The launcher writes down what a child is to do, as a program of system calls (lab/runtime/scripts). This process
 * is small, so that its copies are; each becomes a container by carrying out its program, one call after the other.
 * It decides nothing: every number, path and structure is the launcher's. A call that fails ends the attempt, unless the
 * program says what then: the child says UNFIT and is gone, and the launcher, whose own code can do everything that a
 * program can, and tell what went wrong, starts the container itself. So it does with a program that is none: nothing
 * that is read here leads out of the request, whatever is written there.
 *
 * A request is one packet on standard input: `head`, the calls, the data that they point to; with it come descriptors.
 * The answer is one, too: errno or 0, the child's pid, and with it its pidfd. Standard output is a file in memory, where
 * the kernel writes the pid before the child runs: should this process die before it has answered, the launcher finds
 * the child there.
 */

#include "inside.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

enum { MOST_BYTES = 1 << 19, MOST_DESCRIPTORS = 32, REGISTERS = 256, MOST_WORDS = 4096, RESERVED = 10 };
enum {
    NAMESPACES = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET
};
enum { USAGE = 2, RUNTIME_FAILED = 125, MOST_OF_PASSWD = 1 << 20 };

struct head {
    uint64_t clone_flags;
    uint32_t calls, data; /* how many, and bytes */
    int32_t cgroup;       /* which of the descriptors is that of the group to be born in, or -1 */
    uint32_t channel;     /* the register of the launcher's, which may get another number on the way */
};

/* What an argument is, and what is to happen next. */
enum { NUMBER, REGISTER, POINTER };
enum { MUST_BE_ZERO = 1, SKIP_IF_DONE = 2 };
enum { ANY = 0xffff };

struct call {
    uint16_t number; /* the kernel's, or one of `own` below */
    uint8_t to;      /* the register that gets the result */
    uint8_t flags;
    uint16_t pardoned; /* an errno after which it goes on, `skip` calls later unless SKIP_IF_DONE; ANY of them */
    uint16_t skip;
    uint8_t kinds[6];
    uint16_t padding;
    int64_t arguments[6];
};

/* What takes more than a call, or more than a number: their results are as a system call's. */
enum own {
    OWN = 0x8000,
    IS_DIRECTORY = OWN, IS_NULL, IS_SET, IS_INSIDE, NOTHING, MODE_OF, PREPARE, FILTER, EXECUTE, RAISED, BASE
};

static _Alignas(16) char packet[MOST_BYTES + 2 * MOST_WORDS + 1]; /* strings that never end do so behind it */
static char *origin, *data; /* of all that calls point to, and of what those of a part do */
static int64_t data_bytes;
static int64_t registers[REGISTERS];
static char *words[MOST_WORDS], *environment[MOST_WORDS];
static char home[PATH_MAX + sizeof "HOME="];
static pid_t *born; /* the last child, for the launcher; it makes it 0 when it has heard of that */

static int refuse(int number) {
    errno = number;
    return -1;
}

static int is_of_kind(int descriptor, mode_t kind, int otherwise) {
    struct stat found;
    if (fstat(descriptor, &found) < 0)
        return -1;
    return (found.st_mode & S_IFMT) == kind ? 0 : refuse(otherwise);
}

static int is_null(int descriptor) {
    struct stat found;
    if (fstat(descriptor, &found) < 0)
        return -1;
    return S_ISCHR(found.st_mode) && found.st_rdev == makedev(1, 3) ? 0 : refuse(ENODEV);
}

/* getcwd(2) says "(unreachable)" of what lies outside the root. */
static int is_inside(void) {
    char where[PATH_MAX];
    return syscall(SYS_getcwd, where, sizeof where) > 0 && where[0] == '/' ? 0 : refuse(EXDEV);
}

/* A tmpfs takes over the mode of the directory that it covers. */
static int mode_of(int context, int place) {
    struct stat found;
    char mode[16];
    if (fstat(place, &found) < 0)
        return -1;
    snprintf(mode, sizeof mode, "%o", found.st_mode & 07777);
    return (int)syscall(SYS_fsconfig, context, 1 /* FSCONFIG_SET_STRING */, "mode", mode, 0);
}

/* The beginning of the container's /etc/passwd; lab/runtime/process/account.py has the reasons. */
static size_t read_passwd(char *text) {
    struct stat found;
    if (stat("/etc/passwd", &found) < 0 || !S_ISREG(found.st_mode))
        return 0;
    int opened = open("/etc/passwd", O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (opened < 0)
        return 0;
    ssize_t size = is_of_kind(opened, S_IFREG, EINVAL) == 0 ? read(opened, text, MOST_OF_PASSWD) : 0;
    close(opened);
    return size > 0 ? (size_t)size : 0;
}

/* HOME as of the first line that names the user and a folder, or /. 0 when it has more bytes than there is room for. */
static int find_home(const char *uid) {
    static char text[MOST_OF_PASSWD + 1];
    size_t size = read_passwd(text);
    text[size] = 0;
    if (strlen(text) != size) /* a zero byte: to Python it is a sign as any other */
        return refuse(EILSEQ);
    char *rest = text;
    strcpy(home, "HOME=/");
    for (char *line; (line = strsep(&rest, "\n"));) {
        char *fields[6] = {NULL};
        int count = 0;
        for (char *field; count < 6 && (field = strsep(&line, ":"));)
            fields[count++] = field;
        if (count == 6 && strcmp(fields[2], uid) == 0 && *fields[5]) {
            if (strlen(fields[5]) >= PATH_MAX)
                return refuse(ENAMETOOLONG);
            strcpy(home + strlen("HOME="), fields[5]);
            break;
        }
    }
    return 0;
}

static char *list(char *text, int64_t count, char **into) {
    for (int64_t i = 0; i < count; i++, text += strlen(text) + 1)
        into[i] = text;
    into[count] = NULL;
    return text;
}

/* Words and environment for EXECUTE, out of strings one behind the other; HOME in place `at`, unless it is negative. */
static int prepare(char *text, int64_t count, int64_t variables, int64_t at, const char *uid) {
    if (count < 0 || count >= MOST_WORDS || variables < 0 || variables >= MOST_WORDS || at >= variables)
        return refuse(E2BIG);
    list(list(text, count, words), variables, environment);
    if (at < 0)
        return 0;
    environment[at] = home;
    return find_home(uid);
}

static int filter(int64_t flags, void *instructions, int64_t count) {
    struct sock_fprog program = {.len = (unsigned short)count, .filter = instructions};
    return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
}

/* What the next pointers count from. */
static int move_base(int64_t place) {
    if (place < 0 || place > data_bytes)
        return refuse(EFAULT);
    data = origin + place;
    return 0;
}

static long call_own(int number, const int64_t *a) {
    switch (number) {
    case IS_DIRECTORY: return is_of_kind((int)a[0], S_IFDIR, ENOTDIR);
    case IS_NULL: return is_null((int)a[0]);
    case IS_SET: return a[0] >= 0 ? 0 : refuse(ENOENT);
    case IS_INSIDE: return is_inside();
    case NOTHING: return a[0];
    case MODE_OF: return mode_of((int)a[0], (int)a[1]);
    case PREPARE: return prepare((char *)a[0], a[1], a[2], a[3], (const char *)a[4]);
    case FILTER: return filter(a[0], (void *)a[1], a[2]);
    case EXECUTE: return execve((const char *)a[0], words, environment);
    case RAISED: return poll(&(struct pollfd){.fd = (int)a[0]}, 1, 0); /* the other end of a channel is closed */
    case BASE: return move_base(a[0]);
    default: return refuse(ENOSYS);
    }
}

/* Its arguments, or -1 where one points out of the data. */
static int arguments_of(const struct call *call, int64_t *a) {
    for (int place = 0; place < 6; place++) {
        int64_t value = call->arguments[place];
        if (call->kinds[place] == REGISTER)
            value = registers[value & (REGISTERS - 1)];
        else if (call->kinds[place] == POINTER) {
            if (value < 0 || value >= origin + data_bytes - data)
                return refuse(EFAULT);
            value += (int64_t)data;
        }
        a[place] = value;
    }
    if (call->number == PREPARE && (call->kinds[0] != POINTER || call->kinds[4] != POINTER))
        return refuse(EFAULT); /* which no kernel checks */
    return 0;
}

/* Become the container. Returns when a call has failed that must not. */
static void carry_out(const struct call *calls, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        const struct call *call = calls + i;
        int64_t a[6];
        if (arguments_of(call, a) < 0)
            return;
        long result = call->number >= OWN ? call_own(call->number, a)
                                          : syscall(call->number, a[0], a[1], a[2], a[3], a[4], a[5]);
        if (result >= 0) {
            if (call->flags & MUST_BE_ZERO && result != 0)
                return;
            registers[call->to] = result;
            if (call->flags & SKIP_IF_DONE)
                i += call->skip;
        } else if (call->pardoned == ANY || call->pardoned == errno) {
            if (!(call->flags & SKIP_IF_DONE))
                i += call->skip;
        } else {
            return;
        }
    }
}

/* The next request: its length, 0 when the launcher is gone. */
static ssize_t receive(int *descriptors, int *count) {
    union {
        char room[CMSG_SPACE(MOST_DESCRIPTORS * sizeof(int))];
        struct cmsghdr aligned;
    } control;
    struct iovec where = {.iov_base = packet, .iov_len = MOST_BYTES};
    struct msghdr message = {
        .msg_iov = &where, .msg_iovlen = 1, .msg_control = control.room, .msg_controllen = sizeof control.room};
    ssize_t size = recvmsg(STDIN_FILENO, &message, MSG_CMSG_CLOEXEC);
    *count = 0;
    for (struct cmsghdr *part = CMSG_FIRSTHDR(&message); size > 0 && part; part = CMSG_NXTHDR(&message, part)) {
        *count = (int)((part->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        memcpy(descriptors, CMSG_DATA(part), (size_t)*count * sizeof(int));
    }
    return size > 0 && message.msg_flags & (MSG_TRUNC | MSG_CTRUNC) ? refuse(EMSGSIZE) : size;
}

static void answer(int number, pid_t pid, int pidfd) {
    int32_t words[2] = {number, pid};
    union {
        char room[CMSG_SPACE(sizeof(int))];
        struct cmsghdr aligned;
    } control = {0};
    struct iovec where = {.iov_base = words, .iov_len = sizeof words};
    struct msghdr message = {.msg_iov = &where, .msg_iovlen = 1};
    if (number == 0) {
        message.msg_control = control.room, message.msg_controllen = sizeof control.room;
        struct cmsghdr *part = CMSG_FIRSTHDR(&message);
        part->cmsg_level = SOL_SOCKET, part->cmsg_type = SCM_RIGHTS, part->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(part), &pidfd, sizeof pidfd);
    }
    sendmsg(STDIN_FILENO, &message, MSG_NOSIGNAL);
}

/* Whether it is a request; what its calls are worth shows when they are carried out. */
static int is_sound(const struct head *head, size_t size, int count) {
    return size >= sizeof *head && size == sizeof *head + head->calls * sizeof(struct call) + head->data &&
           !(head->clone_flags & ~(uint64_t)NAMESPACES) && head->cgroup < count && (int64_t)head->channel < count;
}

static void bear(const struct head *head, const int *descriptors, int count) {
    static const char unfit[] = "{\"message\": \"UNFIT\"}";
    const struct call *calls = (const struct call *)(head + 1);
    int pidfd = -1;
    struct clone_args wanted = {.flags = head->clone_flags | CLONE_PIDFD | CLONE_PARENT | CLONE_PARENT_SETTID,
                                .pidfd = (uint64_t)&pidfd, .parent_tid = (uint64_t)born};
    origin = data = (char *)(calls + head->calls), data_bytes = head->data;
    if (head->cgroup >= 0)
        wanted.flags |= CLONE_INTO_CGROUP, wanted.cgroup = (uint64_t)descriptors[head->cgroup];
    pid_t pid = (pid_t)syscall(SYS_clone3, &wanted, sizeof wanted);
    if (pid == 0) {
        for (int i = 0; i < REGISTERS; i++)
            registers[i] = i < count ? descriptors[i] : -1;
        carry_out(calls, head->calls);
        send((int)registers[head->channel], unfit, sizeof unfit - 1, MSG_NOSIGNAL);
        _exit(RUNTIME_FAILED);
    }
    int number = pid < 0 ? errno : 0;
    for (int i = 0; i < count; i++) /* before anybody may wait for the end of a file that this process had open */
        close(descriptors[i]);
    answer(number, pid, pidfd);
    if (pid > 0)
        close(pidfd);
}

/* Of two signals glibc makes a secret: posix_spawn(3) leaves them ignored, which children would inherit. */
static void stop_ignoring_secret_signals(void) {
    static const char as_usual[32]; /* the kernel's struct sigaction: SIG_DFL */
    for (int number = 32; number <= 33; number++)
        syscall(SYS_rt_sigaction, number, as_usual, NULL, 8);
}

int begin(int count, char **arguments) {
    (void)count, (void)arguments;
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* the launcher's; others may hold the other end of the socket */
    stop_ignoring_secret_signals();
    /* Locked: a page that had to be fetched first would not be, once this process is to die. */
    born = mmap(NULL, sizeof *born, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_LOCKED, STDOUT_FILENO, 0);
    if (born == MAP_FAILED)
        return USAGE;
    close(STDOUT_FILENO);
    for (int opened = 0; opened < RESERVED;) /* what comes will have other numbers than it is to get */
        if ((opened = open("/dev/null", O_RDWR | O_CLOEXEC)) < 0)
            return USAGE; /* nothing was read: the launcher starts the container by itself */
    for (ssize_t before = 0;;) {
        int descriptors[MOST_DESCRIPTORS], received;
        ssize_t size = receive(descriptors, &received);
        if (size > 0 && size < before) /* a child has no part of what another was sent */
            explicit_bzero(packet + size, (size_t)(before - size));
        before = size;
        const struct head *head = (const struct head *)packet;
        if (size == 0)
            return 0;
        if (size < 0)
            return USAGE; /* not all of it came, for want of descriptors; another one may have more */
        if (is_sound(head, (size_t)size, received)) {
            bear(head, descriptors, received);
            continue;
        }
        for (int i = 0; i < received; i++)
            close(descriptors[i]);
        answer(EBADMSG, -1, -1);
    }
}
