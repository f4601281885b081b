/* Which pages of a file this kernel has in memory: what page cache attacks read (Gruss et al., CCS 2019).
 *
 *   resident PATH PAGES
 *
 * Says it of the first PAGES pages, a digit each, without touching one of them (mincore(2)). To whoever neither owns
 * the file nor may write to it the kernel claims that all are.
 */

#include "inside.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

enum { MOST_PAGES = 1024 };

int resident_pages(int count, char **arguments) {
    static unsigned char found[MOST_PAGES];
    size_t pages = count == 3 ? (size_t)number(arguments[2]) : 0, size = pages * (size_t)sysconf(_SC_PAGESIZE);
    if (pages < 1 || pages > MOST_PAGES)
        fail("resident: expected PATH and from 1 to %d PAGES", MOST_PAGES);
    errno = 0;
    int fd = open(arguments[1], O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    void *mapped = fd < 0 ? MAP_FAILED : mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
    long result = mapped == MAP_FAILED ? -1 : mincore(mapped, size, found);
    printf("{");
    print_outcome(result);
    printf(", \"resident\": \"");
    for (size_t page = 0; result == 0 && page < pages; page++)
        putchar('0' + (found[page] & 1));
    printf("\"}\n");
    return 0;
}
