/* A file or a folder as a tar archive on standard output, with no tar in the image.
 *
 *   pack [--follow] PATH NAME
 *
 * NAME is what PATH is called in the archive. With --follow a link PATH is replaced by what it leads to; no other
 * link is ever followed. Names, owners and sizes that a plain header can't hold are in extended ones (pax(1)).
 * Sockets are left out, and what is inside of /proc and its like; what can't be read is a line on standard error, and
 * the exit code is 1 then.
 */

#include "inside.h"
#include "tar.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

enum { LARGEST_ID = 07777777, RECORD = 10 * 1024 };
static const long long largest_number = 077777777777LL; /* of eleven octal digits */

struct seen { /* a file with more than one name */
    dev_t device;
    ino_t inode;
    char *name;
};
static struct seen *names;
static size_t name_count;
static unsigned long long written;
static int failures;

static void complain(const char *name) {
    fprintf(stderr, "pack: %s: %s\n", name, strerror(errno));
    failures = 1;
}

static void put(const void *bytes, size_t size) {
    if (fwrite(bytes, 1, size, stdout) != size)
        fail("pack: standard output: %s", strerror(errno));
    written += size;
}

static void pad(size_t to) {
    static const char zeros[RECORD];
    if (written % to)
        put(zeros, to - written % to);
}

unsigned tar_checksum(const struct tar_header *header) {
    const unsigned char *bytes = (const unsigned char *)header;
    unsigned sum = 0;
    for (size_t i = 0; i < BLOCK; i++) {
        int counted = i < offsetof(struct tar_header, checksum) || i >= offsetof(struct tar_header, kind);
        sum += counted ? bytes[i] : ' ';
    }
    return sum;
}

static void put_octal(char *field, size_t size, long long value) {
    char digits[32];
    snprintf(digits, sizeof digits, "%0*llo", (int)size - 1, value < 0 ? 0ULL : (unsigned long long)value);
    memcpy(field, digits, size - 1);
}

/* "LENGTH KEYWORD=VALUE\n", LENGTH counting itself. */
static void add_record(char **records, size_t *size, const char *keyword, const char *value) {
    size_t rest = strlen(keyword) + strlen(value) + 3, length = rest + 1;
    for (char digits[24]; (size_t)snprintf(digits, sizeof digits, "%zu", length) + rest != length;)
        length = (size_t)snprintf(digits, sizeof digits, "%zu", length) + rest;
    *records = realloc(*records, *size + length + 1);
    if (!*records)
        fail("pack: no memory");
    snprintf(*records + *size, length + 1, "%zu %s=%s\n", length, keyword, value);
    *size += length;
}

static void add_number(char **records, size_t *size, const char *keyword, long long value) {
    char text[32];
    snprintf(text, sizeof text, "%lld", value);
    add_record(records, size, keyword, text);
}

static void put_header(const char *name, const struct stat *status, char kind, const char *link, long long length) {
    struct tar_header header = {.kind = kind, .magic = "ustar", .version = {'0', '0'}};
    char *records = NULL;
    size_t size = 0;
    if (strlen(name) > sizeof header.name)
        add_record(&records, &size, "path", name);
    if (strlen(link) > sizeof header.link)
        add_record(&records, &size, "linkpath", link);
    if (length > largest_number)
        add_number(&records, &size, "size", length);
    if (status->st_uid > LARGEST_ID)
        add_number(&records, &size, "uid", status->st_uid);
    if (status->st_gid > LARGEST_ID)
        add_number(&records, &size, "gid", status->st_gid);
    if (status->st_mtime < 0 || status->st_mtime > largest_number)
        add_number(&records, &size, "mtime", status->st_mtime);
    if (size > 0) {
        const struct stat plain = {.st_mode = 0600};
        put_header("extended", &plain, EXTENDED, "", (long long)size);
        put(records, size);
        pad(BLOCK);
        free(records);
    }
    memcpy(header.name, name, strnlen(name, sizeof header.name));
    memcpy(header.link, link, strnlen(link, sizeof header.link));
    put_octal(header.mode, sizeof header.mode, status->st_mode & 07777);
    put_octal(header.uid, sizeof header.uid, status->st_uid > LARGEST_ID ? 0 : status->st_uid);
    put_octal(header.gid, sizeof header.gid, status->st_gid > LARGEST_ID ? 0 : status->st_gid);
    put_octal(header.size, sizeof header.size, length > largest_number ? 0 : length);
    put_octal(header.mtime, sizeof header.mtime, status->st_mtime > largest_number ? 0 : status->st_mtime);
    put_octal(header.major, sizeof header.major, major(status->st_rdev));
    put_octal(header.minor, sizeof header.minor, minor(status->st_rdev));
    put_octal(header.checksum, sizeof header.checksum - 1, tar_checksum(&header));
    put(&header, sizeof header);
}

/* The name that this very file had already, or NULL, and then it is remembered. */
static const char *earlier_name(const struct stat *status, const char *name) {
    for (size_t i = 0; i < name_count; i++)
        if (names[i].device == status->st_dev && names[i].inode == status->st_ino)
            return names[i].name;
    names = realloc(names, (name_count + 1) * sizeof *names);
    char *copy = strdup(name);
    if (!names || !copy)
        fail("pack: no memory");
    names[name_count++] = (struct seen){status->st_dev, status->st_ino, copy};
    return NULL;
}

/* As long as it was when its header was written, whatever happens to it meanwhile. */
static void put_content(int file, const char *name, long long length) {
    static char chunk[1 << 16];
    long long left = length;
    while (left > 0) {
        ssize_t size = read(file, chunk, left < (long long)sizeof chunk ? (size_t)left : sizeof chunk);
        if (size < 0)
            complain(name);
        if (size <= 0) {
            memset(chunk, 0, sizeof chunk);
            size = left < (long long)sizeof chunk ? left : (ssize_t)sizeof chunk;
        }
        put(chunk, (size_t)size);
        left -= size;
    }
    pad(BLOCK);
}

static void pack_file(int folder, const char *entry, const char *name, struct stat *status, int follow) {
    const char *earlier = status->st_nlink > 1 ? earlier_name(status, name) : NULL;
    if (earlier) {
        put_header(name, status, HARD_LINK, earlier, 0);
        return;
    }
    int file = openat(folder, entry, O_RDONLY | O_NONBLOCK | O_CLOEXEC | (follow ? 0 : O_NOFOLLOW));
    if (file < 0 || fstat(file, status) < 0 || !S_ISREG(status->st_mode))
        complain(name);
    else {
        put_header(name, status, PLAIN_FILE, "", status->st_size);
        put_content(file, name, status->st_size);
    }
    if (file >= 0)
        close(file);
}

static int is_kernels_own(int folder) {
    static const unsigned long kinds[] = {PROC_SUPER_MAGIC, SYSFS_MAGIC, CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC,
                                          DEVPTS_SUPER_MAGIC, DEBUGFS_MAGIC, TRACEFS_MAGIC, SECURITYFS_MAGIC};
    struct statfs found;
    for (size_t i = 0; fstatfs(folder, &found) == 0 && i < sizeof kinds / sizeof *kinds; i++)
        if ((unsigned long)found.f_type == kinds[i])
            return 1;
    return 0;
}

static void pack_entry(int folder, const char *entry, const char *name, int follow);

static void pack_directory(int folder, const char *entry, const char *name, const struct stat *status, int follow) {
    size_t room = strlen(name) + NAME_MAX + 2;
    char *longer = malloc(room);
    if (!longer)
        fail("pack: no memory");
    snprintf(longer, room, "%s/", name);
    put_header(longer, status, DIRECTORY, "", 0);
    int opened = openat(folder, entry, O_RDONLY | O_DIRECTORY | O_CLOEXEC | (follow ? 0 : O_NOFOLLOW));
    DIR *stream = opened < 0 ? NULL : fdopendir(opened);
    if (!stream) {
        complain(name);
        if (opened >= 0)
            close(opened);
    } else {
        for (struct dirent *found; !is_kernels_own(opened) && (found = readdir(stream));)
            if (strcmp(found->d_name, ".") != 0 && strcmp(found->d_name, "..") != 0) {
                snprintf(longer, room, "%s/%s", name, found->d_name);
                pack_entry(opened, found->d_name, longer, 0);
            }
        closedir(stream);
    }
    free(longer);
}

static void pack_entry(int folder, const char *entry, const char *name, int follow) {
    struct stat status;
    char link[PATH_MAX];
    if (fstatat(folder, entry, &status, follow ? 0 : AT_SYMLINK_NOFOLLOW) < 0) {
        complain(name);
        return;
    }
    if (S_ISREG(status.st_mode))
        pack_file(folder, entry, name, &status, follow);
    else if (S_ISDIR(status.st_mode))
        pack_directory(folder, entry, name, &status, follow);
    else if (S_ISLNK(status.st_mode)) {
        ssize_t size = readlinkat(folder, entry, link, sizeof link - 1);
        if (size < 0) {
            complain(name);
            return;
        }
        link[size] = '\0';
        put_header(name, &status, SYMBOLIC_LINK, link, 0);
    } else if (S_ISCHR(status.st_mode) || S_ISBLK(status.st_mode))
        put_header(name, &status, S_ISCHR(status.st_mode) ? CHARACTER_DEVICE : BLOCK_DEVICE, "", 0);
    else if (S_ISFIFO(status.st_mode))
        put_header(name, &status, FIFO, "", 0);
}

int pack(int count, char **arguments) {
    int follow = count == 4 && strcmp(arguments[1], "--follow") == 0;
    if (count != 3 + follow)
        fail("pack: expected [--follow] PATH NAME");
    pack_entry(AT_FDCWD, arguments[1 + follow], arguments[2 + follow], follow);
    if (written > 0) {
        static const char end[2 * BLOCK];
        put(end, sizeof end);
        pad(RECORD);
    }
    for (size_t i = 0; i < name_count; i++)
        free(names[i].name);
    free(names);
    return failures;
}
