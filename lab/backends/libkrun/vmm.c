/* vmm: a virtual machine of libkrun's, made of what it is given open.
 *
 *     vmm LIBKRUN LIBKRUNFW ROOT IMAGE LAYER MEBIBYTES PROCESSORS MAC PORTS
 *
 * LIBKRUN and LIBKRUNFW, which holds the kernel, are libraries; ROOT is the folder that the kernel begins with, by
 * virtiofs, read-only; IMAGE a raw disk, over which the machine writes to LAYER, a new file. From descriptor 3 on come
 * PORTS sockets, one for each virtio port, then the tap with the address MAC, then /dev/kvm. What the kernel says
 * goes to standard output.
 *
 * libkrun opens /dev/kvm and the tap by their names, which are in no place that it sees here. So its calls of open(3)
 * and ioctl(2) come to this program first, whose functions of these names it finds before the C library's (ld.so(8)):
 * they hand out what was given. The machine ends this process when it ends, from within libkrun.
 *
 * Source: libkrun.h of libkrun 2.
 */

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <termios.h>
#include <unistd.h>

enum {
    FIRST = 3,
    MOST_PORTS = 16,
    ERRORS_ONLY = 1,       /* KRUN_LOG_LEVEL_ERROR */
    WITHOUT_COLOURS = 2,   /* KRUN_LOG_STYLE_NEVER */
    OUR_LEVEL = 1,         /* KRUN_LOG_OPTION_NO_ENV */
    RAW = 0,               /* KRUN_DISK_FORMAT_RAW */
    QCOW2 = 1,             /* KRUN_DISK_FORMAT_QCOW2 */
    CARD = 1 << 0 | 1 << 1 | 1 << 7 | 1 << 11, /* checksums and TCP segments, in both directions: linux/virtio_net.h */
    ADDRESS_BYTES = 6,
};

static int tap = -1, kvm = -1;
static void *library;

static _Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
static _Noreturn void fail(const char *format, ...) {
    va_list list;
    va_start(list, format);
    fputs("lab: failed: ", stderr);
    vfprintf(stderr, format, list);
    fputc('\n', stderr);
    exit(1);
}

/* What libkrun calls instead of the C library's. */

static int opened(const char *path, int flags, mode_t mode) {
    if (kvm >= 0 && strcmp(path, "/dev/kvm") == 0)
        return fcntl(kvm, F_DUPFD_CLOEXEC, FIRST);
    if (tap >= 0 && strcmp(path, "/dev/net/tun") == 0)
        return fcntl(tap, F_DUPFD_CLOEXEC, FIRST);
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

static mode_t mode_of(int flags, va_list list) {
    return flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(list, mode_t) : 0;
}

int open(const char *path, int flags, ...) {
    va_list list;
    va_start(list, flags);
    mode_t mode = mode_of(flags, list);
    va_end(list);
    return opened(path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    va_list list;
    va_start(list, flags);
    mode_t mode = mode_of(flags, list);
    va_end(list);
    return opened(path, flags, mode);
}

/* The tap is one already: the kernel would refuse to make it one again (drivers/net/tun.c). */
int ioctl(int descriptor, unsigned long request, ...) {
    va_list list;
    va_start(list, request);
    void *argument = va_arg(list, void *);
    va_end(list);
    return request == TUNSETIFF ? 0 : (int)syscall(SYS_ioctl, descriptor, request, argument);
}

/* The function of that name in libkrun. */
static void *find(const char *name) {
    void *found = dlsym(library, name);
    if (!found)
        fail("libkrun has no %s", name);
    return found;
}

static uint32_t done(int32_t answer, const char *what) {
    if (answer < 0)
        fail("%s: %s", what, strerror(-answer));
    return (uint32_t)answer;
}

#define CALL(name, types, ...) done(((int32_t(*) types)find(#name))(__VA_ARGS__), #name)

static void load(const char *path_of_kernel, const char *path) {
    if (!dlopen(path_of_kernel, RTLD_LAZY | RTLD_GLOBAL)) /* libkrun asks for it by its name alone, and has it then */
        fail("%s", dlerror());
    if (!(library = dlopen(path, RTLD_LAZY))) /* of what it does not use some is in no library here */
        fail("%s", dlerror());
}

static void *copy_console(void *given) {
    char chunk[4096];
    for (ssize_t size, sent; (size = read(*(int *)given, chunk, sizeof chunk)) > 0;)
        for (ssize_t at = 0; at < size; at += sent)
            if ((sent = write(STDOUT_FILENO, chunk + at, (size_t)(size - at))) < 0)
                return NULL;
    return NULL;
}

/* A terminal, since libkrun has a console on nothing else, whose other end goes to standard output. */
static int make_console(void) {
    static int ours;
    pthread_t thread;
    struct termios raw;
    ours = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (ours < 0 || grantpt(ours) < 0 || unlockpt(ours) < 0)
        fail("a terminal: %s", strerror(errno));
    int theirs = open(ptsname(ours), O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (theirs < 0 || tcgetattr(theirs, &raw) < 0)
        fail("a terminal: %s", strerror(errno));
    cfmakeraw(&raw);
    if (tcsetattr(theirs, TCSANOW, &raw) < 0 || pthread_create(&thread, NULL, copy_console, &ours))
        fail("a terminal: %s", strerror(errno));
    return theirs;
}

static unsigned long number(const char *word, unsigned long most) {
    char *rest;
    errno = 0;
    unsigned long value = strtoul(word, &rest, 10);
    if (errno || *rest || rest == word || value > most)
        fail("%s is no number up to %lu", word, most);
    return value;
}

static void read_address(const char *word, uint8_t *address) {
    unsigned int bytes[ADDRESS_BYTES];
    char rest;
    if (sscanf(word, "%2x:%2x:%2x:%2x:%2x:%2x%c", bytes, bytes + 1, bytes + 2, bytes + 3, bytes + 4, bytes + 5, &rest) !=
        ADDRESS_BYTES)
        fail("%s is no hardware address", word);
    for (int each = 0; each < ADDRESS_BYTES; each++)
        address[each] = (uint8_t)bytes[each];
}

int main(int count, char **words) {
    uint8_t address[ADDRESS_BYTES];
    if (count != 10)
        fail("vmm: expected LIBKRUN LIBKRUNFW ROOT IMAGE LAYER MEBIBYTES PROCESSORS MAC PORTS");
    uint32_t mebibytes = (uint32_t)number(words[6], UINT32_MAX);
    uint8_t processors = (uint8_t)number(words[7], UINT8_MAX);
    read_address(words[8], address);
    int ports = (int)number(words[9], MOST_PORTS);
    load(words[2], words[1]);
    CALL(krun_init_log, (int, uint32_t, uint32_t, uint32_t), STDERR_FILENO, ERRORS_ONLY, WITHOUT_COLOURS, OUR_LEVEL);
    uint32_t machine = CALL(krun_create_ctx, (void));
    CALL(krun_set_vm_config, (uint32_t, uint8_t, uint32_t), machine, processors, mebibytes);
    CALL(krun_disable_implicit_init, (uint32_t), machine); /* it is lab's helper, in ROOT */
    CALL(krun_add_virtiofs3, (uint32_t, const char *, const char *, uint64_t, bool), machine, "/dev/root", words[3], 0,
         true);
    CALL(krun_create_disk_overlay, (const char *, const char *, uint32_t), words[5], words[4], RAW);
    CALL(krun_add_disk2, (uint32_t, const char *, const char *, uint32_t, bool), machine, "image", words[5], QCOW2, false);
    uint32_t console = CALL(krun_add_virtio_console_multiport, (uint32_t), machine);
    CALL(krun_add_console_port_tty, (uint32_t, uint32_t, const char *, int), machine, console, "console",
         make_console());
    for (int each = 0; each < ports; each++)
        CALL(krun_add_console_port_inout, (uint32_t, uint32_t, const char *, int, int), machine, console, "lab",
             FIRST + each, FIRST + each);
    tap = FIRST + ports;
    kvm = tap + 1;
    CALL(krun_add_net_tap, (uint32_t, const char *, uint8_t *, uint32_t, uint32_t), machine, "tap", address, CARD, 0);
    CALL(krun_start_enter, (uint32_t), machine);
    return 1; /* it does not return but with what is wrong, which `done` tells */
}
