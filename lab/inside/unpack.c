/* A tar archive from standard input into a folder of the image, with no tar in it.
 *
 *   unpack [--owner UID:GID] DIRECTORY
 *
 * What is there already under a name is replaced, except that a directory stays one. Without --owner all belongs to
 * whom the archive says. Stops at the first failure: a line on standard error, exit code 1.
 */

#include "inside.h"
#include "tar.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct member {
    char *path, *link; /* their own memory */
    long long size, mtime, uid, gid;
    mode_t mode;
    char kind;
};

struct finished { /* a directory, whose mode and time are set when nothing more is put into it */
    char *path;
    mode_t mode;
    long long mtime;
};
static struct finished *directories;
static size_t directory_count;
static int owned;
static uid_t owner;
static gid_t owning_group;

static _Noreturn void give_up(const char *name, const char *why) {
    fprintf(stderr, "unpack: %s: %s\n", name, why);
    exit(1);
}

static void take(void *into, size_t size) {
    if (fread(into, 1, size, stdin) != size)
        give_up("standard input", "the archive ends early");
}

static void skip(long long size) {
    char chunk[4096];
    while (size > 0) {
        size_t part = size < (long long)sizeof chunk ? (size_t)size : sizeof chunk;
        take(chunk, part);
        size -= (long long)part;
    }
}

static long long padding(long long size) { return (BLOCK - size % BLOCK) % BLOCK; }

static long long octal(const char *field, size_t size) {
    char text[16] = "";
    memcpy(text, field, size < sizeof text ? size : sizeof text - 1);
    return strtoll(text, NULL, 8);
}

static void replace(char **text, const char *value, size_t size) {
    free(*text);
    *text = strndup(value, size);
    if (!*text)
        give_up("an extended header", "no memory");
}

static char *take_extension(long long size) {
    if (size < 0 || size > LARGEST_EXTENSION)
        give_up("an extended header", "too long");
    char *text = calloc(1, (size_t)size + 1);
    if (!text)
        give_up("an extended header", "no memory");
    take(text, (size_t)size);
    skip(padding(size));
    return text;
}

/* The records of pax(1): "LENGTH KEYWORD=VALUE\n" each. */
static void obey_records(const char *text, size_t size, struct member *next) {
    while (size > 0) {
        char *key;
        size_t length = strtoul(text, &key, 10);
        if (*key != ' ' || length > size || length < (size_t)(key - text) + 3 || text[length - 1] != '\n')
            give_up("an extended header", "no record");
        key++;
        const char *equals = memchr(key, '=', length - (size_t)(key - text));
        if (!equals)
            give_up("an extended header", "no keyword");
        const char *value = equals + 1;
        size_t name = (size_t)(equals - key), rest = (size_t)(text + length - 1 - value);
        if (name == 4 && memcmp(key, "path", name) == 0)
            replace(&next->path, value, rest);
        else if (name == 8 && memcmp(key, "linkpath", name) == 0)
            replace(&next->link, value, rest);
        else if (name == 4 && memcmp(key, "size", name) == 0)
            next->size = strtoll(value, NULL, 10);
        else if (name == 5 && memcmp(key, "mtime", name) == 0)
            next->mtime = strtoll(value, NULL, 10);
        else if (name == 3 && memcmp(key, "uid", name) == 0)
            next->uid = strtoll(value, NULL, 10);
        else if (name == 3 && memcmp(key, "gid", name) == 0)
            next->gid = strtoll(value, NULL, 10);
        text += length, size -= length;
    }
}

/* The next member, all its extended headers in; 0 at the end. -1 in a number is for what the plain header says. */
static int next_member(struct member *member) {
    const struct member nothing = {.size = -1, .mtime = -1, .uid = -1, .gid = -1};
    struct tar_header header;
    *member = nothing;
    for (;;) {
        take(&header, sizeof header);
        if (header.name[0] == '\0' && header.checksum[0] == '\0')
            return 0;
        if (tar_checksum(&header) != (unsigned)octal(header.checksum, sizeof header.checksum))
            give_up("standard input", "no tar archive");
        long long size = octal(header.size, sizeof header.size);
        if (header.kind == EXTENDED || header.kind == EXTENDED_FOR_ALL) {
            char *text = take_extension(size);
            if (header.kind == EXTENDED)
                obey_records(text, (size_t)size, member);
            free(text);
        } else if (header.kind == LONG_NAME || header.kind == LONG_LINK) {
            char *text = take_extension(size);
            replace(header.kind == LONG_NAME ? &member->path : &member->link, text, (size_t)size);
            free(text);
        } else
            break;
    }
    char whole[sizeof header.prefix + sizeof header.name + 2];
    snprintf(whole, sizeof whole, "%.*s%s%.*s", (int)sizeof header.prefix, header.prefix, *header.prefix ? "/" : "",
             (int)sizeof header.name, header.name);
    if (!member->path)
        replace(&member->path, whole, strlen(whole));
    if (!member->link)
        replace(&member->link, header.link, strnlen(header.link, sizeof header.link));
    if (member->size < 0)
        member->size = octal(header.size, sizeof header.size);
    if (member->mtime < 0)
        member->mtime = octal(header.mtime, sizeof header.mtime);
    if (member->uid < 0)
        member->uid = octal(header.uid, sizeof header.uid);
    if (member->gid < 0)
        member->gid = octal(header.gid, sizeof header.gid);
    member->mode = (mode_t)octal(header.mode, sizeof header.mode) & 07777;
    member->kind = header.kind ? header.kind : PLAIN_FILE;
    return 1;
}

/* Its place below the folder: no archive of lab's climbs out of it. */
static char *place(char *path) {
    size_t length = strlen(path);
    while (length > 0 && path[length - 1] == '/')
        path[--length] = '\0';
    while (path[0] == '.' && path[1] == '/')
        path += 2;
    char *copy = strdup(path);
    if (!copy)
        give_up(path, "no memory");
    for (char *rest = copy, *part; (part = strsep(&rest, "/"));)
        if (strcmp(part, "..") == 0)
            give_up(path, "leads out of the archive");
    free(copy);
    if (*path == '/')
        give_up(path, "leads out of the archive");
    return *path ? path : strcpy(path, ".");
}

static void make_way(const char *path) {
    if (unlink(path) < 0 && errno != ENOENT)
        give_up(path, strerror(errno));
}

static void set_owner(const char *path, const struct member *member) {
    uid_t uid = owned ? owner : (uid_t)member->uid;
    gid_t gid = owned ? owning_group : (gid_t)member->gid;
    if (lchown(path, uid, gid) < 0)
        give_up(path, strerror(errno));
}

static void set_time(const char *path, long long mtime) {
    const struct timespec times[] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = mtime}};
    utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW);
}

static void unpack_file(const char *path, const struct member *member) {
    static char chunk[1 << 16];
    make_way(path);
    int file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (file < 0)
        give_up(path, strerror(errno));
    for (long long left = member->size; left > 0;) {
        size_t size = left < (long long)sizeof chunk ? (size_t)left : sizeof chunk;
        take(chunk, size);
        left -= (long long)size;
        for (size_t done = 0; done < size;) {
            ssize_t part = write(file, chunk + done, size - done);
            if (part < 0)
                give_up(path, strerror(errno));
            done += (size_t)part;
        }
    }
    skip(padding(member->size));
    set_owner(path, member);
    if (fchmod(file, member->mode) < 0 || close(file) < 0)
        give_up(path, strerror(errno));
    set_time(path, member->mtime);
}

static void unpack_directory(const char *path, const struct member *member) {
    struct stat found;
    if (strcmp(path, ".") == 0) /* it was there, and stays as it is */
        return;
    if (mkdir(path, 0700) < 0 && (errno != EEXIST || stat(path, &found) < 0 || !S_ISDIR(found.st_mode)))
        give_up(path, errno == EEXIST ? "is no directory" : strerror(errno));
    set_owner(path, member);
    directories = realloc(directories, (directory_count + 1) * sizeof *directories);
    char *copy = strdup(path);
    if (!directories || !copy)
        give_up(path, "no memory");
    directories[directory_count++] = (struct finished){copy, member->mode, member->mtime};
}

static void unpack_member(struct member *member) {
    char *path = place(member->path);
    if (member->kind == PLAIN_FILE) {
        unpack_file(path, member);
        return;
    }
    if (member->kind == DIRECTORY)
        unpack_directory(path, member);
    else if (member->kind == SYMBOLIC_LINK) {
        make_way(path);
        if (symlink(member->link, path) < 0)
            give_up(path, strerror(errno));
        set_owner(path, member);
        set_time(path, member->mtime);
    } else if (member->kind == HARD_LINK) {
        make_way(path);
        if (link(place(member->link), path) < 0)
            give_up(path, strerror(errno));
    } else if (member->kind == FIFO) {
        make_way(path);
        if (mkfifo(path, member->mode) < 0)
            give_up(path, strerror(errno));
        set_owner(path, member);
        set_time(path, member->mtime);
    } else
        fprintf(stderr, "unpack: %s: left out, since it is a device\n", path);
    if (member->kind != HARD_LINK)
        skip(member->size + padding(member->size));
}

int unpack(int count, char **arguments) {
    int next = 1;
    if (count == 4 && strcmp(arguments[1], "--owner") == 0) {
        char *rest;
        owner = (uid_t)strtoul(arguments[2], &rest, 10);
        owning_group = *rest == ':' ? (gid_t)strtoul(rest + 1, &rest, 10) : 0;
        if (*rest)
            fail("unpack: %s is not UID:GID", arguments[2]);
        owned = 1, next = 3;
    }
    if (count != next + 1)
        fail("unpack: expected [--owner UID:GID] DIRECTORY");
    if (chdir(arguments[next]) < 0)
        give_up(arguments[next], strerror(errno));
    umask(0);
    struct member member;
    while (next_member(&member)) {
        unpack_member(&member);
        free(member.path);
        free(member.link);
    }
    while (directory_count > 0) {
        struct finished *last = &directories[--directory_count];
        if (chmod(last->path, last->mode) < 0)
            give_up(last->path, strerror(errno));
        set_time(last->path, last->mtime);
        free(last->path);
    }
    free(directories);
    char rest[4096];
    while (fread(rest, 1, sizeof rest, stdin) > 0) /* who sends shall not be cut off */
        ;
    return 0;
}
