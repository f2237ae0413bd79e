// What both event loops stand on: epoll with nanosecond timeouts, descriptors enough for 9,000
// connections, and commands that arrive as lines on stdin.
#ifndef LOOP_H
#define LOOP_H

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "clock.h"

#define LOOP_EVENTS 512
#define COMMAND_BYTES 256

static inline _Noreturn void die(const char *what)
{
    perror(what);
    exit(EXIT_FAILURE);
}

static inline _Noreturn void misused(const char *why)
{
    fprintf(stderr, "%s\n", why);
    exit(2);
}

static inline uint64_t number(const char *text)
{
    char *end;
    uint64_t value = strtoull(text, &end, 10);
    if (end == text || *end != '\0')
        misused("a number was expected");
    return value;
}

static inline void *allocate(size_t bytes)
{
    void *memory = calloc(1, bytes);
    if (memory == NULL)
        die("calloc");
    return memory;
}

static inline void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        die("getrlimit");
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
        die("setrlimit");
}

// The first member of whatever has a descriptor in the epoll: what to call when something happens to it.
typedef struct source {
    void (*ready)(struct source *self, uint32_t events);
} source;

static inline void watch(int epoll, int descriptor, uint32_t interest, source *owner)
{
    struct epoll_event event = {.events = interest, .data.ptr = owner};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, descriptor, &event) != 0)
        die("epoll_ctl (stdin must be a pipe or a terminal)");
}

static inline void watch_instead(int epoll, int descriptor, uint32_t interest, source *owner)
{
    struct epoll_event event = {.events = interest, .data.ptr = owner};
    if (epoll_ctl(epoll, EPOLL_CTL_MOD, descriptor, &event) != 0)
        die("epoll_ctl");
}

// A timeout of epoll_wait: rounded up, and at most what its int holds.
static inline int milliseconds(uint64_t due, uint64_t left)
{
    uint64_t rounded = (left + 999999) / 1000000;
    return due == NEVER ? -1 : rounded < INT_MAX ? (int)rounded : INT_MAX;
}

// Waits for events until `due` on the monotonic clock, and returns how many there are. Kernels before 5.11
// have no epoll_pwait2: there, whole milliseconds are waited, rounded up.
static inline int wait_until(int epoll, struct epoll_event events[LOOP_EVENTS], uint64_t due)
{
    uint64_t now = due == NEVER ? 0 : now_ns();
    uint64_t left = due > now ? due - now : 0;
    int count = -1;
#ifdef SYS_epoll_pwait2
    struct timespec timeout = {(time_t)(left / NS_PER_SECOND), (long)(left % NS_PER_SECOND)};
    struct timespec *limit = due == NEVER ? NULL : &timeout;
    count = (int)syscall(SYS_epoll_pwait2, epoll, events, LOOP_EVENTS, limit, NULL, 0);
    if (count < 0 && errno == ENOSYS)
#endif
        count = epoll_wait(epoll, events, LOOP_EVENTS, milliseconds(due, left));
    if (count < 0 && errno != EINTR)
        die("epoll_wait");
    return count < 0 ? 0 : count;
}

// Waits until `due` at most, and tells the sources of what happened. An event may close its own source and
// free it, but no other source that has a descriptor in the epoll.
static inline void loop_turn(int epoll, uint64_t due)
{
    struct epoll_event events[LOOP_EVENTS];
    int count = wait_until(epoll, events, due);
    for (int i = 0; i < count; i++) {
        source *owner = events[i].data.ptr;
        owner->ready(owner, events[i].events);
    }
}

// The lines of stdin, as far as they have been read.
typedef struct {
    source source;
    bool ended;
    char text[COMMAND_BYTES];
    size_t length;
} command_input;

// Takes in what is there to read.
static inline void commands_receive(command_input *input)
{
    if (input->length == sizeof input->text)
        misused("a command on stdin is too long");
    ssize_t count = read(STDIN_FILENO, input->text + input->length, sizeof input->text - input->length);
    if (count > 0)
        input->length += (size_t)count;
    else if (count == 0 || (errno != EINTR && errno != EAGAIN))
        input->ended = true;
}

// Moves the next whole line into `line`, without its end; false when there is none.
static inline bool commands_next(command_input *input, char line[COMMAND_BYTES])
{
    char *end = memchr(input->text, '\n', input->length);
    if (end == NULL)
        return false;
    size_t length = (size_t)(end - input->text);
    memcpy(line, input->text, length);
    line[length] = '\0';
    input->length -= length + 1;
    memmove(input->text, end + 1, input->length);
    return true;
}

#endif
