// The two clocks of the benchmark, in nanoseconds.
#ifndef CLOCK_H
#define CLOCK_H

#include <stdint.h>
#include <time.h>

#define NS_PER_SECOND 1000000000ull
#define NEVER UINT64_MAX

static inline uint64_t clock_ns(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    return (uint64_t)time.tv_sec * NS_PER_SECOND + (uint64_t)time.tv_nsec;
}

// What events are stamped with: one clock for every process of a machine, and it never steps.
static inline uint64_t now_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

// On-CPU time of this process as the scheduler counts it, not in ticks.
static inline uint64_t cpu_ns(void)
{
    return clock_ns(CLOCK_PROCESS_CPUTIME_ID);
}

#endif
