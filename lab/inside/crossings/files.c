/* Crossings into file systems: one that is memory (tmpfs), and the one that the instance's root directory is on,
 * whatever that is. All but "fsync" and "direct" are served by the page cache. */

#include "crossings.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

enum { BLOCK = 4096, SMALL = 1024, CHUNK = 1 << 16, MIB = 1 << 20, MEBIBYTES = 8, BLOCKS = MEBIBYTES * MIB / BLOCK };

static char scratch[64] = ""; /* a folder, removed at the end */

static const char *name_of(long type) {
    static char unknown[32];
    static const struct {
        long type;
        const char *name;
    } known[] = {
        {TMPFS_MAGIC, "tmpfs"},       {OVERLAYFS_SUPER_MAGIC, "overlay"}, {EXT4_SUPER_MAGIC, "ext4"},
        {BTRFS_SUPER_MAGIC, "btrfs"}, {XFS_SUPER_MAGIC, "xfs"},           {FUSE_SUPER_MAGIC, "fuse"},
        {V9FS_MAGIC, "9p"},           {RAMFS_MAGIC, "ramfs"},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i].type == type)
            return known[i].name;
    snprintf(unknown, sizeof unknown, "0x%lx", (unsigned long)type);
    return unknown;
}

void tidy(void) {
    static const char *const names[] = {"small", "file"};
    char path[96];
    for (size_t i = 0; *scratch && i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", scratch, names[i]);
        unlink(path);
    }
    if (*scratch)
        rmdir(scratch);
}

/* A new folder in the first of ``candidates`` that is what ``fits`` wants; says on which file system that is. */
static void settle(const char *const *candidates, int (*fits)(const char *path), const char *what) {
    struct statfs found;
    int error = 0;
    for (; *candidates; candidates++) {
        if (!fits(*candidates) || statfs(*candidates, &found) < 0)
            continue;
        snprintf(scratch, sizeof scratch, "%s/lab-crossings-XXXXXX", *candidates);
        if (mkdtemp(scratch)) {
            tell("file_system", name_of((long)found.f_type));
            return;
        }
        error = errno;
        *scratch = 0;
    }
    absent(what, error);
}

static int is_tmpfs(const char *path) {
    struct statfs found;
    return statfs(path, &found) == 0 && (long)found.f_type == TMPFS_MAGIC;
}

static int is_of_root(const char *path) {
    struct stat root, other;
    return stat("/", &root) == 0 && stat(path, &other) == 0 && root.st_dev == other.st_dev;
}

static void settle_on_tmpfs(void) {
    static const char *const candidates[] = {"/dev/shm", "/tmp", "/run", "/var/tmp", NULL};
    settle(candidates, is_tmpfs, "no tmpfs that can be written to");
}

static void settle_on_root(void) {
    static const char *const candidates[] = {"/var/tmp", "/tmp", "/root", "/", NULL};
    settle(candidates, is_of_root, "the root directory's file system can't be written to");
}

/* A file of MEBIBYTES whose name is gone; with ``more`` it is on its disk, and opened so. Written block by block: what
 * is written in larger pieces some kernels cache in larger pieces, into which it takes longer to write a block. */
static int file_of_blocks(int more) {
    char path[96], block[BLOCK];
    snprintf(path, sizeof path, "%s/file", scratch);
    int fd = open(path, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0)
        absent("open", errno);
    memset(block, 1, sizeof block);
    for (int i = 0; i < BLOCKS; i++)
        if (write(fd, block, BLOCK) != BLOCK)
            absent("write", errno);
    if (more) {
        int error = fsync(fd) < 0 ? errno : 0;
        close(fd);
        fd = open(path, O_RDWR | O_CLOEXEC | more);
        if (fd < 0)
            error = errno;
        if (error)
            absent("open with O_DIRECT", error);
    }
    tidy();
    return fd;
}

static off_t somewhere(void) {
    static uint64_t state = 0x9e3779b97f4a7c15; /* xorshift64, Marsaglia 2003 */
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return (off_t)(state % BLOCKS) * BLOCK;
}

static uint64_t small_files(void *context, uint64_t times) {
    static char content[SMALL];
    uint64_t began = nanoseconds();
    for (uint64_t i = 0; i < times; i++) {
        int fd = open(context, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
        if (fd < 0 || write(fd, content, SMALL) != SMALL || close(fd) < 0 || unlink(context) < 0)
            absent("a small file", errno);
    }
    return nanoseconds() - began;
}

struct blocks {
    int fd;
    char *block; /* aligned, as O_DIRECT wants it */
};

static uint64_t block_reads(void *context, uint64_t times) {
    const struct blocks *blocks = context;
    uint64_t began = nanoseconds();
    for (uint64_t i = 0; i < times; i++)
        if (pread(blocks->fd, blocks->block, BLOCK, somewhere()) != BLOCK)
            absent("pread", errno);
    return nanoseconds() - began;
}

static uint64_t block_writes(void *context, uint64_t times) {
    const struct blocks *blocks = context;
    uint64_t began = nanoseconds();
    for (uint64_t i = 0; i < times; i++)
        if (pwrite(blocks->fd, blocks->block, BLOCK, somewhere()) != BLOCK)
            absent("pwrite", errno);
    return nanoseconds() - began;
}

static uint64_t synced_writes(void *context, uint64_t times) {
    const struct blocks *blocks = context;
    uint64_t began = nanoseconds();
    for (uint64_t i = 0; i < times; i++)
        if (pwrite(blocks->fd, blocks->block, BLOCK, somewhere()) != BLOCK || fsync(blocks->fd) < 0)
            absent("fsync", errno);
    return nanoseconds() - began;
}

/* The file anew in each round, a MiB of it, so that every page has to be found. */
static uint64_t streams(void *context, uint64_t times) {
    static char chunk[CHUNK];
    int fd = *(int *)context;
    uint64_t began = nanoseconds();
    for (uint64_t i = 0; i < times; i++) {
        if (ftruncate(fd, 0) < 0)
            absent("ftruncate", errno);
        for (off_t at = 0; at < MIB; at += CHUNK)
            if (pwrite(fd, chunk, CHUNK, at) != CHUNK)
                absent("pwrite", errno);
    }
    return nanoseconds() - began;
}

static void with_small_files(void) {
    char path[96];
    snprintf(path, sizeof path, "%s/small", scratch);
    measure(small_files, path, 1);
    tidy();
}

static void with_blocks(rounds *run, int more) {
    struct blocks blocks = {.fd = file_of_blocks(more), .block = aligned_alloc(BLOCK, BLOCK)};
    if (!blocks.block)
        absent("aligned_alloc", errno);
    memset(blocks.block, 2, BLOCK);
    measure(run, &blocks, 1);
}

static void with_a_stream(void) {
    int fd = file_of_blocks(0);
    measure(streams, &fd, 1);
}

static void tmpfs_small(void) { settle_on_tmpfs(), with_small_files(); }
static void tmpfs_read(void) { settle_on_tmpfs(), with_blocks(block_reads, 0); }
static void tmpfs_write(void) { settle_on_tmpfs(), with_blocks(block_writes, 0); }
static void tmpfs_stream(void) { settle_on_tmpfs(), with_a_stream(); }
static void root_small(void) { settle_on_root(), with_small_files(); }
static void root_read(void) { settle_on_root(), with_blocks(block_reads, 0); }
static void root_write(void) { settle_on_root(), with_blocks(block_writes, 0); }
static void root_stream(void) { settle_on_root(), with_a_stream(); }
static void root_fsync(void) { settle_on_root(), with_blocks(synced_writes, 0); }
static void root_direct(void) { settle_on_root(), with_blocks(block_reads, O_DIRECT); }

const struct named file_crossings[] = {
    {"tmpfs.small", tmpfs_small}, {"tmpfs.read", tmpfs_read},   {"tmpfs.write", tmpfs_write},
    {"tmpfs.stream", tmpfs_stream}, {"root.small", root_small}, {"root.read", root_read},
    {"root.write", root_write},   {"root.stream", root_stream}, {"root.fsync", root_fsync},
    {"root.direct", root_direct}, {NULL, NULL},
};
