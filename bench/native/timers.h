// Timers in a binary heap, the earliest first. A timer is a part of its owner, and knows its place.
#ifndef TIMERS_H
#define TIMERS_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "clock.h"
#include "loop.h"

typedef struct {
    uint64_t due;
    size_t place; // in the heap, from 1; 0 while it is not armed
    void *owner;
} timer;

typedef struct {
    timer **heap; // from 1
    size_t count;
    size_t room;
} timers;

static inline uint64_t timers_due(const timers *all)
{
    return all->count > 0 ? all->heap[1]->due : NEVER;
}

static inline void timers_put(timers *all, size_t place, timer *one)
{
    all->heap[place] = one;
    one->place = place;
}

static inline void timers_settle(timers *all, size_t place, timer *one)
{
    for (; place > 1 && all->heap[place / 2]->due > one->due; place /= 2)
        timers_put(all, place, all->heap[place / 2]);
    for (size_t child; (child = place * 2) <= all->count; place = child) {
        if (child < all->count && all->heap[child + 1]->due < all->heap[child]->due)
            child++;
        if (all->heap[child]->due >= one->due)
            break;
        timers_put(all, place, all->heap[child]);
    }
    timers_put(all, place, one);
}

static inline void timers_arm(timers *all, timer *one, uint64_t due)
{
    one->due = due;
    if (one->place == 0) {
        if (all->count + 2 > all->room) {
            all->room = all->room * 2 + 64;
            all->heap = realloc(all->heap, all->room * sizeof *all->heap);
            if (all->heap == NULL)
                die("realloc");
        }
        one->place = ++all->count;
    }
    timers_settle(all, one->place, one);
}

static inline void timers_disarm(timers *all, timer *one)
{
    if (one->place == 0)
        return;
    size_t place = one->place;
    timer *last = all->heap[all->count--];
    one->place = 0;
    if (last != one)
        timers_settle(all, place, last);
}

#endif
