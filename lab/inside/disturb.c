/* A bad neighbour, bounded: by time, by an amount, and by whatever cgroup it is in.
 *
 *   disturb KIND SECONDS AMOUNT [ADDRESS]
 *
 *   cpu      AMOUNT processes that spin
 *   memory   a process that touches AMOUNT bytes and holds them; killed, it begins anew
 *   forks    processes that fork and wait, until AMOUNT are alive or fork(2) refuses; then anew
 *   disk     a file of AMOUNT bytes, written and brought to the disk again and again
 *   cache    a file of AMOUNT bytes without blocks, read again and again: it fills the page cache
 *   inodes   AMOUNT empty files made and removed again and again: inodes and dentries are slab
 *   full     a file in /dev/shm until no space is left, again and again; only where that is a tmpfs of at most AMOUNT
 *            bytes: the host's own, which a bare process sees, is left alone
 *   files    AMOUNT descriptors opened and closed again and again
 *   watches  AMOUNT inotify instances, held
 *   send     datagrams to ADDRESS, port 9 (RFC 863), as fast as they go
 *
 * Says how often it could do what it wanted, and how often it was refused or killed. Files have no name, or are
 * removed; whatever ends it, its processes go with it.
 */

#include "inside.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MOST_SECONDS = 120, MOST_PROCESSES = 4096, MOST_DESCRIPTORS = 1 << 16, CHUNK = 1 << 20, DISCARD = 9 };

struct tally {
    volatile unsigned long long done, refused;
};

struct wish {
    double end; /* on the monotonic clock */
    size_t amount;
    const char *address;
    struct tally *tally; /* shared with children */
};

static int time_left(const struct wish *wish) { return monotonic_seconds() < wish->end; }

static void count_one(const struct wish *wish, int served) {
    if (served)
        wish->tally->done++;
    else
        wish->tally->refused++;
}

static void rest_a_little(void) { usleep(10000); }

static pid_t child_of_ours(void) {
    pid_t child = fork();
    if (child == 0)
        prctl(PR_SET_PDEATHSIG, SIGKILL);
    return child;
}

static void kill_and_reap(const pid_t *children, size_t count) {
    for (size_t i = 0; i < count; i++)
        kill(children[i], SIGKILL);
    for (size_t i = 0; i < count; i++)
        waitpid(children[i], NULL, 0);
}

/* Up to ``most`` children at once, each doing ``work``; how many there are. */
static size_t start_children(const struct wish *wish, pid_t *children, size_t most, void (*work)(const struct wish *)) {
    size_t made = 0;
    for (; made < most && time_left(wish); made++) {
        pid_t child = child_of_ours();
        if (child == 0) {
            work(wish);
            _exit(0);
        }
        count_one(wish, child > 0);
        if (child < 0)
            break;
        children[made] = child;
    }
    return made;
}

static void spin_on(const struct wish *wish) {
    while (time_left(wish))
        ;
}

static void wait_on(const struct wish *wish) {
    (void)wish;
    pause();
}

static void hog_cpu(const struct wish *wish) {
    static pid_t children[MOST_PROCESSES];
    size_t made = start_children(wish, children, wish->amount, spin_on);
    while (time_left(wish))
        rest_a_little();
    kill_and_reap(children, made);
}

static void bomb_forks(const struct wish *wish) {
    static pid_t children[MOST_PROCESSES];
    while (time_left(wish)) {
        size_t made = start_children(wish, children, wish->amount, wait_on);
        rest_a_little();
        kill_and_reap(children, made);
    }
}

static void hold_memory(const struct wish *wish) {
    char *memory = mmap(NULL, wish->amount, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        _exit(1);
    for (size_t offset = 0; offset < wish->amount && time_left(wish); offset += 4096)
        memory[offset] = 1;
    while (time_left(wish))
        rest_a_little();
}

static void bomb_memory(const struct wish *wish) {
    while (time_left(wish)) {
        pid_t child = child_of_ours();
        if (child == 0) {
            hold_memory(wish);
            _exit(0);
        }
        int status = 0;
        if (child > 0)
            waitpid(child, &status, 0);
        count_one(wish, child > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0);
        rest_a_little();
    }
}

/* A file without a name, in the instance's writable layer. */
static int nameless_file(void) {
    char name[] = "/tmp/lab-disturb-XXXXXX", other[] = "/lab-disturb-XXXXXX";
    int fd = mkostemp(name, O_CLOEXEC);
    if (fd >= 0) {
        unlink(name);
        return fd;
    }
    fd = mkostemp(other, O_CLOEXEC);
    if (fd < 0)
        fail("disturb: no place for a file: %s", strerror(errno));
    unlink(other);
    return fd;
}

static void flood_disk(const struct wish *wish) {
    char *chunk = malloc(CHUNK);
    int fd = nameless_file();
    if (!chunk)
        fail("disturb: no memory");
    memset(chunk, 0x5a, CHUNK);
    while (time_left(wish)) {
        for (off_t at = 0; at < (off_t)wish->amount && time_left(wish); at += CHUNK)
            count_one(wish, pwrite(fd, chunk, CHUNK, at) == CHUNK);
        fdatasync(fd);
    }
    close(fd);
}

static void thrash_cache(const struct wish *wish) {
    char *chunk = malloc(CHUNK);
    int fd = nameless_file();
    if (!chunk || ftruncate(fd, (off_t)wish->amount) < 0)
        fail("disturb: no file of %zu bytes: %s", wish->amount, strerror(errno));
    while (time_left(wish))
        for (off_t at = 0; at < (off_t)wish->amount && time_left(wish); at += CHUNK)
            count_one(wish, pread(fd, chunk, CHUNK, at) > 0);
    close(fd);
}

static void exhaust_inodes(const struct wish *wish) {
    char folder[] = "/tmp/lab-disturb-XXXXXX", path[64];
    if (!mkdtemp(folder))
        fail("disturb: no folder: %s", strerror(errno));
    while (time_left(wish)) {
        size_t made = 0;
        for (; made < wish->amount && time_left(wish); made++) {
            snprintf(path, sizeof path, "%s/%zu", folder, made);
            int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
            count_one(wish, fd >= 0);
            if (fd < 0)
                break;
            close(fd);
        }
        for (size_t i = 0; i < made; i++) {
            snprintf(path, sizeof path, "%s/%zu", folder, i);
            unlink(path);
        }
    }
    rmdir(folder);
}

static void fill_up(const struct wish *wish) {
    struct statfs found;
    char *chunk = calloc(1, CHUNK);
    int fd = open("/dev/shm", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (!chunk || fd < 0 || fstatfs(fd, &found) < 0 || found.f_type != TMPFS_MAGIC)
        fail("disturb: /dev/shm is no tmpfs: %s", strerror(errno));
    if (found.f_blocks == 0 || (unsigned long long)found.f_blocks * (unsigned long long)found.f_bsize > wish->amount)
        fail("disturb: /dev/shm is larger than %zu bytes", wish->amount);
    while (time_left(wish)) {
        for (int fits = 1; fits && time_left(wish);) {
            fits = write(fd, chunk, CHUNK) == CHUNK;
            count_one(wish, fits);
        }
        if (ftruncate(fd, 0) < 0 || lseek(fd, 0, SEEK_SET) < 0)
            fail("disturb: /dev/shm: %s", strerror(errno));
    }
    close(fd);
}

static int open_null(void) { return open("/dev/null", O_RDONLY | O_CLOEXEC); }
static int open_watch(void) { return inotify_init1(IN_CLOEXEC); }

/* ``keep``: what it has got, until the end. */
static void take_descriptors(const struct wish *wish, int (*take)(void), int keep) {
    static int held[MOST_DESCRIPTORS];
    do {
        size_t made = 0;
        for (; made < wish->amount && made < MOST_DESCRIPTORS && time_left(wish); made++) {
            held[made] = take();
            count_one(wish, held[made] >= 0);
            if (held[made] < 0)
                break;
        }
        while (keep && time_left(wish))
            rest_a_little();
        while (made > 0)
            close(held[--made]);
        rest_a_little();
    } while (time_left(wish));
}

static void exhaust_files(const struct wish *wish) { take_descriptors(wish, open_null, 0); }
static void exhaust_watches(const struct wish *wish) { take_descriptors(wish, open_watch, 1); }

static void flood_network(const struct wish *wish) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(DISCARD)};
    char datagram[1400] = {0};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (!wish->address || inet_pton(AF_INET, wish->address, &to.sin_addr) != 1 || fd < 0)
        fail("disturb: send wants an address");
    while (time_left(wish)) /* whoever has no such port says so, and the next one fails with ECONNREFUSED */
        count_one(wish, sendto(fd, datagram, sizeof datagram, 0, (struct sockaddr *)&to, sizeof to) > 0);
}

static const struct {
    const char *name;
    void (*run)(const struct wish *wish);
} kinds[] = {
    {"cpu", hog_cpu},           {"memory", bomb_memory},   {"forks", bomb_forks},
    {"disk", flood_disk},       {"cache", thrash_cache},   {"inodes", exhaust_inodes},   {"full", fill_up},
    {"files", exhaust_files},   {"watches", exhaust_watches}, {"send", flood_network},
};

int disturb(int count, char **arguments) {
    if (count < 4 || count > 5)
        fail("disturb: expected KIND SECONDS AMOUNT [ADDRESS]");
    unsigned long long seconds = number(arguments[2]);
    struct wish wish = {.amount = (size_t)number(arguments[3]), .address = count == 5 ? arguments[4] : NULL};
    if (seconds < 1 || seconds > MOST_SECONDS)
        fail("disturb: from 1 to %d seconds", MOST_SECONDS);
    if ((strcmp(arguments[1], "cpu") == 0 || strcmp(arguments[1], "forks") == 0) && wish.amount > MOST_PROCESSES)
        fail("disturb: at most %d processes", MOST_PROCESSES);
    wish.tally = mmap(NULL, sizeof *wish.tally, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (wish.tally == MAP_FAILED)
        fail("disturb: mmap: %s", strerror(errno));
    /* Its children end with it, but it does not end with its parent: that may be the runtime of an Engine, which leaves
     * as soon as this is executed. It ends by its own time, or with all of its group. */
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(kinds[i].name, arguments[1]) == 0) {
            wish.end = monotonic_seconds() + (double)seconds;
            kinds[i].run(&wish);
            printf("{\"kind\": \"%s\", \"done\": %llu, \"refused\": %llu}\n", arguments[1], wish.tally->done,
                   wish.tally->refused);
            return 0;
        }
    fail("disturb: no kind %s", arguments[1]);
}
