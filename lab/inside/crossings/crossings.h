/* What the parts of `crossings` share: how one is timed, and how one says that it can't be had here. */

#ifndef LAB_CROSSINGS_H
#define LAB_CROSSINGS_H

#include "../inside.h"

#include <stdint.h>

/* Does something ``rounds`` times and says how many nanoseconds of the monotonic clock that took. */
typedef uint64_t rounds(void *context, uint64_t rounds);

/* One crossing: sets up what it needs, times it, and returns. It has a process of its own, which ends with it. */
typedef void crossing(void);

struct named {
    const char *name;
    crossing *run;
};
extern const struct named call_crossings[], memory_crossings[], task_crossings[]; /* each ends with a null name */
extern const struct named network_crossings[], file_crossings[];

/* batches.c */
uint64_t nanoseconds(void);
void measure(rounds *run, void *context, double operations); /* ``operations`` in a round; prints the batches */
void tell(const char *name, const char *value);              /* one more member of the answer */
_Noreturn void absent(const char *what, int error);          /* there is no such thing here: says why, and ends */
int pin_to_one(void); /* this process and what it makes, to the processor that it is on; the processor, or -1 */
void pin_to(int processor);
int another_processor(int than); /* that this process may use; -1 when there is none */
pid_t born(void);                /* fork(2), of a child that does not outlive its parent */
void pass(int fd, const void *byte); /* exactly one byte, or absent */
void take(int fd, void *byte);

/* files.c */
void tidy(void); /* removes the files of this process */

#endif
