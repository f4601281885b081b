/* jail: the program that libvirt takes for QEMU. It enters the instance's control group, shuts itself in, gives away
 * all that it may do, and becomes QEMU.
 *
 *     JAIL names a file of orders, which lab has written (orders.py): a line each, a word and what it is about.
 *
 * The orders say which control group, which files and devices, and which system calls. What holds for every QEMU is decided here: the
 * namespaces, a root of its own, the descriptors that are left, a user that nobody else is, no capability.
 *
 * Without orders it becomes a QEMU that has no machine: that is how libvirt finds out what QEMU can do. Any other is
 * refused, so that no guest ever runs outside.
 *
 * libvirt keeps QEMU's process by its number. So nothing is forked here, and there is no PID namespace.
 */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#ifndef QEMU
#error QEMU is the path of the emulator: see emulator.py
#endif

#define JAIL "LAB_JAIL"

enum {
    FIRST_USER = 2000000000, /* + the process's number. systemd's docs/UIDS-GIDS.md: nobody's */
    NAMESPACES = CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP,
    DATA = MS_NOSUID | MS_NODEV | MS_NOEXEC,
};

static char root[PATH_MAX];
static struct sock_fprog filter;
static int memory = -1; /* the descriptor of a saved machine's memory, if it has one */
static pid_t parent; /* with whose end QEMU's comes, 0 for nobody's */

/* An ordinary user's lab, root of a user namespace of its own, has no users but those that are mapped there: ``among``
 * of them from ``first`` on. 0: root of the host's.
 */
static unsigned int first, among;
static int keeps_groups; /* of an ordinary user's, one of which opens /dev/kvm; none of them has a number inside */

__attribute__((noreturn, format(printf, 1, 2))) static void fail(const char *format, ...) {
    int number = errno;
    va_list arguments;
    va_start(arguments, format);
    fputs("lab's jail: ", stderr);
    vfprintf(stderr, format, arguments);
    fprintf(stderr, ": %s\n", strerror(number));
    exit(1);
}

/* Numbers of processes are unique while these live, and so is a user that is named after one; where users are few, two
 * QEMUs may be the same one.
 */
static uid_t user(void) { return among ? first + (uid_t)getpid() % among : FIRST_USER + (uid_t)getpid(); }

static char *inside(const char *path) {
    char *target;
    if (asprintf(&target, "%s%s", root, path) < 0)
        fail("%s", path);
    return target;
}

/* The folders above ``path`` in the new root, as far as they are not there yet. */
static void make_way(const char *path) {
    char *target = inside(path);
    for (size_t at = strlen(root) + 1; target[at]; at++) {
        if (target[at] != '/')
            continue;
        target[at] = '\0';
        if (mkdir(target, 0755) < 0 && errno != EEXIST)
            fail("mkdir %s", target);
        target[at] = '/';
    }
    free(target);
}

/* What a mount of the host's forbids stays forbidden in an ordinary user's namespace (mount_namespaces(7), "locked"). */
static unsigned long locked(const char *path) {
    static const unsigned long known[][2] = {
        {ST_RDONLY, MS_RDONLY}, {ST_NOSUID, MS_NOSUID},   {ST_NODEV, MS_NODEV},           {ST_NOEXEC, MS_NOEXEC},
        {ST_NOATIME, MS_NOATIME}, {ST_RELATIME, MS_RELATIME}, {ST_NODIRATIME, MS_NODIRATIME},
    };
    struct statvfs about;
    unsigned long flags = 0;
    if (!among)
        return 0;
    if (statvfs(path, &about) < 0)
        fail("%s", path);
    for (size_t each = 0; each < sizeof known / sizeof *known; each++)
        if (about.f_flag & known[each][0])
            flags |= known[each][1];
    return flags;
}

/* Show a file or folder of the host at its own path in the new root. */
static void show(const char *path, unsigned long flags) {
    char *target = inside(path);
    struct stat status;
    if (stat(path, &status) < 0)
        fail("%s", path);
    make_way(path);
    if (access(target, F_OK) < 0) {
        if (S_ISDIR(status.st_mode) ? mkdir(target, 0755) : mknod(target, S_IFREG | 0600, 0))
            fail("make %s", target);
    }
    if (mount(path, target, NULL, MS_BIND, NULL) < 0 ||
        mount(NULL, target, NULL, MS_REMOUNT | MS_BIND | flags | locked(path), NULL) < 0)
        fail("mount %s", path);
    free(target);
}

/* The same of a file whose folder may be somebody else's, who can put another one there at any time, or a link to one in
 * a folder that is closed to all: it has to be the one that lab has looked at, by its device and inode.
 */
static void show_same(const char *words) {
    unsigned long long device, inode;
    int path;
    struct stat status;
    if (sscanf(words, "%llu %llu %n", &device, &inode, &path) != 2)
        fail("same %s", words);
    show(words + path, MS_RDONLY | DATA);
    char *target = inside(words + path);
    if (stat(target, &status) < 0)
        fail("%s", target);
    if (status.st_dev != device || status.st_ino != inode) {
        errno = ESTALE;
        fail("%s is another file than lab has looked at", words + path);
    }
    free(target);
}

static void give(const char *path, mode_t mode) {
    if (lchown(path, user(), user()) < 0 || chmod(path, mode) < 0)
        fail("give %s", path);
}

/* What libvirt makes by itself, under a name that only it knows in full. */
static void give_those(const char *pattern, mode_t mode, unsigned long flags) {
    glob_t found;
    if (glob(pattern, GLOB_ERR, NULL, &found) != 0)
        return;
    for (size_t each = 0; each < found.gl_pathc; each++) {
        give(found.gl_pathv[each], mode);
        show(found.gl_pathv[each], flags);
    }
    globfree(&found);
}

static void make_device(const char *words) {
    unsigned int major, minor;
    int path;
    if (sscanf(words, "%u %u %n", &major, &minor, &path) != 2)
        fail("device %s", words);
    make_way(words + path);
    char *target = inside(words + path);
    if (mknod(target, S_IFCHR | 0600, makedev(major, minor)) < 0 || lchown(target, user(), user()) < 0)
        fail("device %s", words);
    free(target);
}

/* No node that an ordinary user makes can be opened: the host's own is shown, with what its mode says. */
static void show_device(const char *path) {
    char *target = inside(path);
    make_way(path);
    if (mknod(target, S_IFREG | 0600, 0) < 0 || mount(path, target, NULL, MS_BIND, NULL) < 0)
        fail("device %s", path);
    free(target);
}

static void be_one_of(const char *words) {
    if (sscanf(words, "%u %u", &first, &among) != 2 || !first || !among) {
        errno = EINVAL;
        fail("users %s", words);
    }
}

static void make_link(char *words) {
    char *target = strchr(words, ' ');
    if (!target)
        fail("link %s", words);
    *target++ = '\0';
    char *link = inside(words);
    if (symlink(target, link) < 0)
        fail("link %s", words);
    free(link);
}

static void limit(const char *words) {
    int resource;
    unsigned long long value;
    struct rlimit old;
    if (sscanf(words, "%d %llu", &resource, &value) != 2 || getrlimit(resource, &old) < 0)
        fail("limit %s", words);
    rlim_t wanted = value < old.rlim_max ? value : old.rlim_max;
    if (setrlimit(resource, &(struct rlimit){wanted, wanted}) < 0)
        fail("limit %s", words);
}

/* Before anything else, so that all that comes is charged to it. */
static void join(const char *procs) {
    int file = open(procs, O_WRONLY | O_CLOEXEC);
    if (file < 0 || dprintf(file, "%d\n", getpid()) < 0 || close(file) < 0)
        fail("join %s", procs);
}

static void read_from(const char *path) {
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0 || dup2(file, STDIN_FILENO) < 0)
        fail("read %s", path);
}

/* A file that has no name, at a number that nobody has yet, and the way by which QEMU opens it again: the folder of its
 * own descriptors, of which each that it may open so it has already. It stays its own when it has become QEMU.
 */
static void open_memory(const char *words) {
    int path;
    if (sscanf(words, "%d %n", &memory, &path) != 1 || memory <= STDERR_FILENO)
        fail("memory %s", words);
    if (fcntl(memory, F_GETFD) >= 0) {
        errno = EBUSY;
        fail("memory %s", words);
    }
    int file = open(words + path, O_RDWR | O_CLOEXEC);
    if (file < 0 || dup2(file, memory) < 0)
        fail("memory %s", words);
    make_way("/dev/fd");
    char *target = inside("/dev/fd"), *own;
    if (asprintf(&own, "/proc/%d/fd", getpid()) < 0 || mkdir(target, 0755) < 0 ||
        mount(own, target, NULL, MS_BIND, NULL) < 0 ||
        mount(NULL, target, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | DATA | locked(own), NULL) < 0)
        fail("mount %s", target);
    free(own);
    free(target);
}

/* What lab lets QEMU ask of the kernel; it is in force from just before QEMU is executed. */
static void read_filter(const char *path) {
    static struct sock_filter program[BPF_MAXINSNS];
    int file = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = file < 0 ? -1 : read(file, program, sizeof program);
    if (size <= 0 || close(file) < 0)
        fail("filter %s", path);
    filter = (struct sock_fprog){.len = (unsigned short)((size_t)size / sizeof *program), .filter = program};
}

/* Namespaces of its own, in which no mount is seen outside, and a root with nothing in it yet. */
static void separate(const char *directory) {
    if (unshare(NAMESPACES) < 0)
        fail("namespaces");
    if (sethostname("qemu", 4) < 0)
        fail("host name");
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        fail("private mounts");
    if (mount("qemu", directory, "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=0755,size=1m,nr_inodes=512") < 0)
        fail("mount %s", directory);
    if (snprintf(root, sizeof root, "%s", directory) >= (int)sizeof root)
        fail("%s", directory);
}

static void obey(const char *word, char *about) {
    if (!strcmp(word, "join"))
        join(about);
    else if (!strcmp(word, "stdin"))
        read_from(about);
    else if (!strcmp(word, "limit"))
        limit(about);
    else if (!strcmp(word, "parent"))
        parent = atoi(about);
    else if (!strcmp(word, "filter"))
        read_filter(about);
    else if (!strcmp(word, "users"))
        be_one_of(about);
    else if (!strcmp(word, "groups") && among)
        keeps_groups = 1;
    else if (!strcmp(word, "root"))
        separate(about);
    else if (!*root)
        fail("%s comes before root", word);
    else if (!strcmp(word, "memory"))
        open_memory(about);
    else if (!strcmp(word, "link"))
        make_link(about);
    else if (!strcmp(word, "program"))
        show(about, MS_RDONLY | MS_NOSUID | MS_NODEV);
    else if (!strcmp(word, "read"))
        show(about, MS_RDONLY | DATA);
    else if (!strcmp(word, "same"))
        show_same(about);
    else if (!strcmp(word, "write")) {
        give(about, 0600);
        show(about, DATA);
    } else if (!strcmp(word, "socket"))
        give(about, 0600);
    else if (!strcmp(word, "secret"))
        give_those(about, 0400, MS_RDONLY | DATA);
    else if (!strcmp(word, "variables"))
        give_those(about, 0600, DATA);
    else if (!strcmp(word, "device"))
        make_device(about);
    else if (!strcmp(word, "node"))
        show_device(about);
    else
        fail("no such order: %s", word);
}

static void obey_all(const char *path) {
    struct stat status;
    FILE *orders = fopen(path, "re");
    if (!orders || fstat(fileno(orders), &status) < 0)
        fail("%s", path);
    if (!S_ISREG(status.st_mode) || status.st_uid != 0 || status.st_mode & (S_IWGRP | S_IWOTH)) {
        errno = EPERM;
        fail("%s is not root's alone", path);
    }
    char *line = NULL;
    size_t room = 0;
    for (ssize_t length; (length = getline(&line, &room, orders)) > 0;) {
        line[strcspn(line, "\n")] = '\0';
        char *about = strchr(line, ' ');
        if (!about)
            fail("%s", line);
        *about++ = '\0';
        obey(line, about);
    }
    free(line);
    fclose(orders);
}

/* The old root goes where the new one is, and from there away (pivot_root(2), "pivot_root(".", ".")"). */
static void enter(void) {
    if (!*root || !filter.len) {
        errno = ENOENT;
        fail("no %s", *root ? "filter" : "root");
    }
    if (chdir(root) < 0 || syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
        fail("enter %s", root);
    if (mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NOEXEC, NULL) < 0)
        fail("read-only root");
}

/* Sockets, the tap and vhost stay. What else libvirt leaves open is a file: its own record of QEMU's number, writable,
 * from which it learns later whom to kill.
 */
static void close_files(void) {
    DIR *open_ones = opendir("/proc/self/fd");
    if (!open_ones)
        fail("/proc/self/fd");
    for (struct dirent *each; (each = readdir(open_ones));) {
        int number = atoi(each->d_name);
        struct stat status;
        if (number <= STDERR_FILENO || number == memory || number == dirfd(open_ones) || fstat(number, &status) < 0)
            continue;
        if (S_ISREG(status.st_mode) || S_ISDIR(status.st_mode) || S_ISBLK(status.st_mode))
            close(number);
    }
    closedir(open_ones);
}

/* Nothing is kept, and nothing comes back by execve: neither set-user-ID nor file capabilities do. */
static void drop(void) {
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[2] = {{0}};
    for (int each = 0; prctl(PR_CAPBSET_READ, each) >= 0; each++)
        if (prctl(PR_CAPBSET_DROP, each) < 0)
            fail("bounding set");
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
        fail("ambient set");
    if ((!keeps_groups && setgroups(0, NULL) < 0) || setresgid(user(), user(), user()) < 0 || setresuid(user(), user(), user()) < 0)
        fail("user");
    if (syscall(SYS_capset, &head, none) < 0)
        fail("capabilities");
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        fail("no_new_privs");
    umask(077);
    /* A change of user has taken back what was asked for before: prctl(2). */
    if (parent && (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent))
        fail("parent");
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) < 0)
        fail("seccomp");
}

static int has_no_machine(char **arguments) {
    for (; arguments[0] && arguments[1]; arguments++)
        if (!strcmp(arguments[0], "-machine") && !strncmp(arguments[1], "none", 4))
            return 1;
    return 0;
}

int main(int count, char **arguments) {
    const char *orders = getenv(JAIL);
    (void)count;
    if (!orders) {
        if (!has_no_machine(arguments)) {
            errno = EPERM;
            fail("a machine without " JAIL);
        }
        execv(QEMU, arguments);
        fail("%s", QEMU);
    }
    obey_all(orders);
    close_files();
    enter();
    drop();
    execve(QEMU, arguments, (char *[]){"LC_ALL=C", NULL});
    fail("%s", QEMU);
}
