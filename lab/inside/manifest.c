/* The canonical manifest of a tree; the format is docs/images.md's, "The manifest".
 *
 *   manifest ROOT            the text
 *   manifest --digest ROOT   its SHA-256 and its number of lines
 *   manifest --without PATH … [--digest] ROOT    the same, without PATH and all below it
 */

#include "inside.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

static const char *const trees_left_out[] = {"/.lab", "/proc", "/sys", "/dev", NULL};
static const char *const files_left_out[] = {"/etc/hosts", "/etc/hostname", "/etc/resolv.conf", NULL};

/* Every path below the root, absolute and unescaped. */
static struct {
    char **items;
    size_t count, room;
} paths;

static int root; /* a descriptor */

static const char *below_root(const char *path) { return path[1] ? path + 1 : "."; }

/* What the caller wants to be left out. */
static char *const *without;
static int without_count; /* pairs of words */

static int left_out(const char *path) {
    for (int i = 0; i < without_count; i++)
        if (strcmp(path, without[2 * i + 1]) == 0)
            return 1;
    for (const char *const *tree = trees_left_out; *tree; tree++)
        if (strcmp(path, *tree) == 0) /* its entries are never reached */
            return 1;
    for (const char *const *file = files_left_out; *file; file++)
        if (strcmp(path, *file) == 0)
            return 1;
    return 0;
}

static void remember(char *path) {
    if (paths.count == paths.room) {
        paths.room = paths.room ? 2 * paths.room : 4096;
        paths.items = realloc(paths.items, paths.room * sizeof *paths.items);
        if (!paths.items)
            fail("manifest: out of memory after %zu paths", paths.count);
    }
    paths.items[paths.count++] = path;
}

static void collect(const char *directory) {
    int fd = openat(root, below_root(directory), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *stream = fd < 0 ? NULL : fdopendir(fd);
    if (!stream)
        fail("manifest: %s: %s", directory, strerror(errno));
    for (struct dirent *entry; (errno = 0, entry = readdir(stream));) {
        char *path;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (asprintf(&path, "%s/%s", directory[1] ? directory : "", entry->d_name) < 0)
            fail("manifest: out of memory");
        if (left_out(path)) {
            free(path);
            continue;
        }
        struct stat found;
        if (fstatat(root, path + 1, &found, AT_SYMLINK_NOFOLLOW) < 0)
            fail("manifest: %s: %s", path, strerror(errno));
        remember(path);
        if (S_ISDIR(found.st_mode))
            collect(path);
    }
    if (errno)
        fail("manifest: %s: %s", directory, strerror(errno));
    closedir(stream);
}

/* Where the text goes: to standard output, or into a digest alone. */
static struct sha256 text_hash;
static int digest_only;

static void emit(const char *text, size_t size) {
    if (digest_only)
        sha256_add(&text_hash, text, size);
    else if (fwrite(text, 1, size, stdout) != size)
        fail("manifest: standard output: %s", strerror(errno));
}

static void emitf(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void emitf(const char *format, ...) {
    char text[128];
    va_list list;
    va_start(list, format);
    int size = vsnprintf(text, sizeof text, format, list);
    va_end(list);
    emit(text, (size_t)size);
}

static void emit_escaped(const char *text) {
    for (; *text; text++) {
        unsigned char byte = (unsigned char)*text;
        if (byte <= 0x20 || byte >= 0x7f || byte == '\\')
            emitf("\\x%02x", byte);
        else
            emit(text, 1);
    }
}

static void emit_content_hash(const char *path) {
    static unsigned char buffer[1 << 16];
    char hexadecimal[65];
    struct sha256 hash;
    int fd = openat(root, below_root(path), O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NOATIME);
    if (fd < 0) /* O_NOATIME is for owners only, open(2) */
        fd = openat(root, below_root(path), O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        fail("manifest: %s: %s", path, strerror(errno));
    ssize_t size;
    sha256_start(&hash);
    while ((size = read(fd, buffer, sizeof buffer)) > 0)
        sha256_add(&hash, buffer, (size_t)size);
    if (size < 0)
        fail("manifest: %s: %s", path, strerror(errno));
    close(fd);
    sha256_finish(&hash, hexadecimal);
    emit(hexadecimal, 64);
}

static void emit_target(const char *path) {
    char target[PATH_MAX + 1];
    ssize_t size = readlinkat(root, below_root(path), target, sizeof target - 1);
    if (size < 0)
        fail("manifest: %s: %s", path, strerror(errno));
    target[size] = '\0';
    emit_escaped(target);
}

static char type_letter(mode_t mode) {
    switch (mode & S_IFMT) {
    case S_IFREG: return 'f';
    case S_IFDIR: return 'd';
    case S_IFLNK: return 'l';
    case S_IFCHR: return 'c';
    case S_IFBLK: return 'b';
    case S_IFIFO: return 'p';
    default: return 's';
    }
}

static void emit_line(const char *path) {
    struct stat found;
    if (fstatat(root, below_root(path), &found, AT_SYMLINK_NOFOLLOW) < 0)
        fail("manifest: %s: %s", path, strerror(errno));
    char type = type_letter(found.st_mode);
    emitf("%c %04o %u %u %lld ", type, found.st_mode & 07777, found.st_uid, found.st_gid,
          type == 'f' ? (long long)found.st_size : 0);
    if (type == 'f')
        emit_content_hash(path);
    else if (type == 'l')
        emit_target(path);
    else if (type == 'c' || type == 'b')
        emitf("%u:%u", major(found.st_rdev), minor(found.st_rdev));
    else
        emit("-", 1);
    emit(" ", 1);
    emit_escaped(path);
    emit("\n", 1);
}

static int by_bytes(const void *left, const void *right) {
    return strcmp(*(char *const *)left, *(char *const *)right); /* compares as unsigned char, C11 7.24.4 */
}

int print_manifest(int count, char **arguments) {
    without = arguments + 1;
    while (count > 3 && strcmp(arguments[1], "--without") == 0)
        count -= 2, arguments += 2, without_count++;
    digest_only = count == 3 && strcmp(arguments[1], "--digest") == 0;
    if (count != 2 + digest_only)
        fail("manifest: expected [--without PATH …] [--digest] ROOT");
    root = open(arguments[1 + digest_only], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root < 0)
        fail("manifest: %s: %s", arguments[1 + digest_only], strerror(errno));
    sha256_start(&text_hash);
    remember(strdup("/"));
    collect("/");
    qsort(paths.items, paths.count, sizeof *paths.items, by_bytes);
    for (size_t i = 0; i < paths.count; i++)
        emit_line(paths.items[i]);
    if (digest_only) {
        char hexadecimal[65];
        sha256_finish(&text_hash, hexadecimal);
        printf("%s %zu\n", hexadecimal, paths.count);
    }
    return 0;
}
