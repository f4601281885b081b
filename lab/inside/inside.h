/* The parts of lab's helper and what they offer one another. See inside.c for the verbs. */

#ifndef LAB_INSIDE_H
#define LAB_INSIDE_H

#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>

/* Every verb has main()'s shape: arguments[0] is the verb itself; the result is the exit code. */
typedef int verb(int count, char **arguments);

verb run_init;                                                       /* init.c */
verb print_manifest;                                                 /* manifest.c */
verb print_surface;                                                  /* surface.c */
verb make_call, open_path, read_path, stat_path, list_directory;     /* ask.c */
verb list_namespaces, find_processes, mount_tmpfs, open_node;        /* ask.c */
verb open_release_agent, enter_namespace, read_clock;                /* ask.c */
verb file_system_space, gain_user, tell_boot;                        /* ask.c */
verb hold, greet, read_shared_memory;                                /* neighbour.c */
verb closed;                                                         /* closed.c */
verb broken_out, as_user;                                            /* broken_out.c */
verb resident_pages;                                                 /* pages.c */
verb serve, interact, relay;                                         /* serve.c, interact.c, relay.c */
verb pack, unpack;                                                   /* pack.c, unpack.c */
verb compute, allocate, fork_many, open_many, spin;                  /* burden.c */
verb disturb;                                                        /* disturb.c */
verb crossings;                                                      /* crossings/batches.c */
verb renew;                                                          /* renew.c */
verb begin;                                                          /* begin.c */
verb guest, wire;                                                    /* guest.c, wire.c */

/* A program to execute, and as what; init.c. */
struct application {
    int status_fd;        /* gets the errno in decimal if execve(2) fails; -1 for none */
    int report_fd;        /* gets that, or 0 if it succeeded; -1 for none. Of run_init alone */
    int has_terminal;     /* standard input is a socket, which gets the terminal's master */
    struct winsize terminal;
    int socket_fd;         /* is to be standard input; -1 to leave that as it is. Of run_init alone */
    const char *user;      /* UID:GID[:GID…], or NULL to stay */
    const char *directory; /* or NULL to stay */
    char **argv;
};
_Noreturn void execute_application(const struct application *app, const sigset_t *mask);

/* terminal.c; both are -1 with errno when that fails. */
struct winsize parse_size(const char *text);   /* ROWSxCOLUMNS; fails on anything else */
int take_terminal(struct winsize size);        /* make one, send its master over standard input, be controlled by it */
int receive_descriptor(int from);

/* closed.c; both end the program with what has failed. */
void must(int result, const char *what);
void put_text(const char *path, const char *text);

/* An output of the application and where it goes; relay.c, whose verb passes two of them on, until both have ended. */
enum { OUTPUTS = 2 };
struct relayed {
    int from, to;
    uint64_t passed; /* bytes */
};
void relay_all(struct relayed both[OUTPUTS]);

/* SHA-256 as in FIPS 180-4, sha256.c. */
struct sha256 {
    uint32_t state[8];
    uint64_t length_bytes;
    size_t filled;
    unsigned char block[64];
};
void sha256_start(struct sha256 *hash);
void sha256_add(struct sha256 *hash, const void *data, size_t size);
void sha256_finish(struct sha256 *hash, char hexadecimal[65]);

/* inside.c */
_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
unsigned long long number(const char *text); /* decimal, octal or 0x…; negative ones wrap; fails on anything else */
double monotonic_seconds(void);
void print_string(const char *bytes, size_t size); /* as a JSON string */
void print_outcome(long result);                   /* "ret": …, "errno": …, "name": … from result and errno */

#endif
