/* renew: a machine that was saved goes on, possibly not the only one. Gives its kernel the time and randomness of its own.
 *
 * Standard input is mixed into the kernel's pool, and its generator seeded from there at once: by itself it would go on
 * for up to a minute from the state that all copies share (random(4); drivers/char/random.c, crng_reseed). Programs
 * that keep a generator of their own notice nothing of that.
 */

#include "inside.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum { MOST_BYTES = 512, NANOSECONDS = 1000000000 };

/* renew NANOSECONDS: since the epoch. Prints nothing. */
int renew(int count, char **arguments) {
    struct {
        struct rand_pool_info head;
        char bytes[MOST_BYTES];
    } pool = {0};
    if (count != 2)
        fail("renew: expected NANOSECONDS");
    unsigned long long since = number(arguments[1]);
    struct timespec now = {.tv_sec = (time_t)(since / NANOSECONDS), .tv_nsec = (long)(since % NANOSECONDS)};
    if (clock_settime(CLOCK_REALTIME, &now) < 0)
        fail("renew: clock_settime: %s", strerror(errno));
    ssize_t size = read(STDIN_FILENO, pool.bytes, sizeof pool.bytes);
    int device = open("/dev/urandom", O_RDWR | O_CLOEXEC);
    if (size < 0 || device < 0)
        fail("renew: %s", strerror(errno));
    pool.head.buf_size = (int)size;
    pool.head.entropy_count = (int)size * 4; /* bits: it comes in hexadecimal digits */
    if (size > 0 && ioctl(device, RNDADDENTROPY, &pool) < 0)
        fail("renew: RNDADDENTROPY: %s", strerror(errno));
    if (size > 0 && ioctl(device, RNDRESEEDCRNG) < 0 && errno != ENODATA) /* none: it has never been seeded yet */
        fail("renew: RNDRESEEDCRNG: %s", strerror(errno));
    return 0;
}
