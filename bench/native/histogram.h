// A log-linear histogram of nanoseconds: 64 buckets to every power of two, so that a bucket's middle is
// within 0.8 % of every value in it.
#ifndef HISTOGRAM_H
#define HISTOGRAM_H

#include <stdint.h>
#include <stdio.h>

#define HISTOGRAM_BITS 6
#define HISTOGRAM_BUCKETS ((64 - HISTOGRAM_BITS + 1) << HISTOGRAM_BITS)

typedef struct {
    uint64_t count;
    uint64_t max;
    uint64_t buckets[HISTOGRAM_BUCKETS];
} histogram;

static inline unsigned histogram_bucket(uint64_t value)
{
    if (value < (1u << HISTOGRAM_BITS))
        return (unsigned)value;
    unsigned shift = 63 - (unsigned)__builtin_clzll(value) - HISTOGRAM_BITS;
    return (shift << HISTOGRAM_BITS) + (unsigned)(value >> shift);
}

// The middle of a bucket.
static inline uint64_t histogram_value(unsigned bucket)
{
    if (bucket < (2u << HISTOGRAM_BITS))
        return bucket;
    unsigned shift = (bucket >> HISTOGRAM_BITS) - 1;
    uint64_t low = (uint64_t)(bucket - (shift << HISTOGRAM_BITS)) << shift;
    return low + ((1ull << shift) >> 1);
}

static inline void histogram_add(histogram *h, uint64_t value)
{
    h->count++;
    h->buckets[histogram_bucket(value)]++;
    if (value > h->max)
        h->max = value;
}

// The smallest value that `percent` of all values do not exceed; 0 of an empty histogram.
static inline uint64_t histogram_percentile(const histogram *h, double percent)
{
    uint64_t rank = (uint64_t)((double)h->count * percent / 100.0), seen = 0;
    for (unsigned bucket = 0; bucket < HISTOGRAM_BUCKETS; bucket++) {
        seen += h->buckets[bucket];
        if (seen > rank)
            return histogram_value(bucket) < h->max ? histogram_value(bucket) : h->max;
    }
    return h->max;
}

static inline void histogram_print(const histogram *h, const char *name)
{
    printf(",\"%s\":{\"n\":%llu,\"p50\":%llu,\"p90\":%llu,\"p99\":%llu,\"max\":%llu}", name,
           (unsigned long long)h->count, (unsigned long long)histogram_percentile(h, 50),
           (unsigned long long)histogram_percentile(h, 90), (unsigned long long)histogram_percentile(h, 99),
           (unsigned long long)h->max);
}

#endif
