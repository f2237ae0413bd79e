// The benchmark's event. It looks like a chunk of an OpenAI chat completion, and its content begins with
// a mark, `@SEQ:NANOSECONDS`: the event's number in its stream, from 1, and the time of its write. Both are
// zero-padded to a fixed width, so that the writer patches digits into a template; the reader depends on
// the 20 digits of the time alone, for a proxy may put the content into a JSON of its own.
#ifndef EVENT_H
#define EVENT_H

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define EVENT_SEQ_DIGITS 10
#define EVENT_TIME_DIGITS 20
#define EVENT_MARK '@'
#define EVENT_DONE "[DONE]"

static inline void put_digits(char *text, unsigned width, uint64_t value)
{
    while (width > 0) {
        text[--width] = (char)('0' + value % 10);
        value /= 10;
    }
}

#define EVENT_BEFORE \
    "data: {\"id\":\"chatcmpl-b\",\"object\":\"chat.completion.chunk\",\"created\":1700000000," \
    "\"model\":\"bench\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\""
#define EVENT_AFTER "\"},\"finish_reason\":null}]}\n\n"
#define EVENT_AFTER_LAST "\"},\"finish_reason\":\"stop\"}]}\n\n"

#define EVENT_SEQ_AT (sizeof EVENT_BEFORE) // behind the '@'; sizeof counts the string's end
#define EVENT_TIME_AT (EVENT_SEQ_AT + EVENT_SEQ_DIGITS + 1)
#define EVENT_PADDING_AT (EVENT_TIME_AT + EVENT_TIME_DIGITS)
#define EVENT_MIN (EVENT_PADDING_AT + sizeof EVENT_AFTER_LAST - 1)

// Writes an event of exactly `size` octets (at least EVENT_MIN), its numbers zero.
static inline void event_template(char *text, size_t size, const char *after)
{
    static const char words[] = " and so the words of an answer come one after another";
    size_t after_at = size - strlen(after);
    memcpy(text, EVENT_BEFORE, sizeof EVENT_BEFORE - 1);
    text[EVENT_SEQ_AT - 1] = EVENT_MARK;
    put_digits(text + EVENT_SEQ_AT, EVENT_SEQ_DIGITS, 0);
    text[EVENT_TIME_AT - 1] = ':';
    put_digits(text + EVENT_TIME_AT, EVENT_TIME_DIGITS, 0);
    for (size_t at = EVENT_PADDING_AT; at < after_at; at++)
        text[at] = words[(at - EVENT_PADDING_AT) % (sizeof words - 1)];
    memcpy(text + after_at, after, size - after_at);
}

// Finds the marks and the `[DONE]` in a body that comes in any pieces. No text is kept between two pieces:
// all that is known of a token cut in two is in here.
typedef struct {
    enum { SCAN_TEXT, SCAN_SEQ, SCAN_TIME, SCAN_DONE } state;
    unsigned count; // digits or letters of the token so far
    uint64_t seq;
    uint64_t time;
} event_scanner;

typedef enum { FOUND_NOTHING, FOUND_EVENT, FOUND_DONE } event_finding;

// Takes digits from `at` into `value`, and returns where they end.
static inline const char *scan_digits(event_scanner *scanner, uint64_t *value, const char *at,
                                      const char *end)
{
    unsigned count = scanner->count, digit;
    uint64_t sum = *value;
    for (; at < end && count < EVENT_TIME_DIGITS && (digit = (unsigned)(*at - '0')) <= 9; at++, count++)
        sum = sum * 10 + digit;
    *value = sum;
    scanner->count = count;
    return at;
}

// Goes on from `at` to the next finding or the end of the piece, and returns where to go on after it.
//
// `[DONE]` is looked for only behind the last mark of a piece: before an event it would be one too early,
// and an early one is found missing at the end.
static inline const char *scan(event_scanner *scanner, const char *at, const char *end,
                               event_finding *finding)
{
    *finding = FOUND_NOTHING;
    while (at < end) {
        switch (scanner->state) {
        case SCAN_TEXT: {
            const char *mark = memchr(at, EVENT_MARK, (size_t)(end - at));
            scanner->state = mark != NULL ? SCAN_SEQ : SCAN_DONE;
            if (mark == NULL && (mark = memchr(at, EVENT_DONE[0], (size_t)(end - at))) == NULL) {
                scanner->state = SCAN_TEXT;
                return end;
            }
            scanner->count = scanner->state == SCAN_DONE;
            scanner->seq = scanner->time = 0;
            at = mark + 1;
            break;
        }
        case SCAN_SEQ:
            at = scan_digits(scanner, &scanner->seq, at, end);
            if (at == end)
                return at;
            scanner->state = scanner->count > 0 && *at == ':' ? SCAN_TIME : SCAN_TEXT;
            scanner->count = 0;
            at += scanner->state == SCAN_TIME;
            break;
        case SCAN_TIME:
            at = scan_digits(scanner, &scanner->time, at, end);
            if (scanner->count == EVENT_TIME_DIGITS)
                *finding = FOUND_EVENT;
            else if (at == end)
                return at;
            scanner->state = SCAN_TEXT;
            if (*finding != FOUND_NOTHING)
                return at;
            break;
        case SCAN_DONE:
            if (*at != EVENT_DONE[scanner->count]) {
                scanner->state = SCAN_TEXT;
                break;
            }
            at++;
            if (++scanner->count == sizeof EVENT_DONE - 1) {
                scanner->state = SCAN_TEXT;
                *finding = FOUND_DONE;
                return at;
            }
            break;
        }
    }
    return at;
}

#endif
