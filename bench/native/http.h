// The little of HTTP/1.1 (RFC 9112) that both programs need: where a head ends, what a field says,
// and the octets of a body, whatever its framing and however the reads cut it.
#ifndef HTTP_H
#define HTTP_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/types.h>

// The length of the head that begins at `text`, with its empty line; 0 when it is not whole yet.
static inline size_t head_length(const char *text, size_t length)
{
    const char *end = memmem(text, length, "\r\n\r\n", 4);
    return end == NULL ? 0 : (size_t)(end - text) + 4;
}

typedef struct {
    const char *text;
    size_t length;
} slice;

// The value of a field of a whole head; empty where the head has no such field.
static inline slice head_field(slice head, const char *name)
{
    size_t name_length = strlen(name);
    const char *end = head.text + head.length;
    for (const char *line = head.text; line < end;) {
        const char *line_end = memchr(line, '\r', (size_t)(end - line));
        if (line_end == NULL)
            break;
        size_t length = (size_t)(line_end - line);
        if (length > name_length && line[name_length] == ':' && strncasecmp(line, name, name_length) == 0) {
            const char *value = line + name_length + 1;
            while (value < line_end && (*value == ' ' || *value == '\t'))
                value++;
            return (slice){value, (size_t)(line_end - value)};
        }
        line = line_end + 2;
    }
    return (slice){"", 0};
}

// Whether a field's value holds a word, in any case.
static inline bool slice_has(slice value, const char *word)
{
    size_t length = strlen(word);
    for (size_t at = 0; at + length <= value.length; at++)
        if (strncasecmp(value.text + at, word, length) == 0)
            return true;
    return false;
}

typedef enum {
    BODY_OF_LENGTH,
    BODY_UNTIL_CLOSE,
    CHUNK_SIZE,
    CHUNK_EXTENSION,
    CHUNK_SIZE_LF,
    CHUNK_DATA,
    CHUNK_DATA_CR,
    CHUNK_DATA_LF,
    TRAILER_START,
    TRAILER_LINE,
    TRAILER_LF,
    CHUNKED_END_LF,
    BODY_ENDED,
    BODY_BROKEN,
} body_state;

typedef struct {
    body_state state;
    unsigned digits; // of the chunk size so far
    uint64_t left;   // octets of the body or of the chunk
} body_decoder;

// The framing that a head announces. `otherwise` is the state of a body without any framing.
static inline body_decoder body_of(slice head, body_state otherwise)
{
    if (slice_has(head_field(head, "transfer-encoding"), "chunked"))
        return (body_decoder){.state = CHUNK_SIZE};
    slice length = head_field(head, "content-length");
    if (length.length == 0)
        return (body_decoder){.state = otherwise};
    uint64_t left = strtoull(length.text, NULL, 10);
    return (body_decoder){.state = left > 0 ? BODY_OF_LENGTH : BODY_ENDED, .left = left};
}

static inline int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

#define CHUNK_SIZE_DIGITS 15 // 60 bits: `left` cannot overflow

static inline body_state chunk_size_step(body_decoder *body, char c)
{
    int digit = hex_digit(c);
    if (digit >= 0) {
        body->left = body->left * 16 + (unsigned)digit;
        return ++body->digits > CHUNK_SIZE_DIGITS ? BODY_BROKEN : CHUNK_SIZE;
    }
    if (body->digits == 0)
        return BODY_BROKEN;
    body->digits = 0;
    if (c == '\r')
        return CHUNK_SIZE_LF;
    return c == ';' || c == ' ' || c == '\t' ? CHUNK_EXTENSION : BODY_BROKEN;
}

// One octet of the framing, in the states that are not data.
static inline body_state framing_step(body_decoder *body, char c)
{
    switch (body->state) {
    case CHUNK_SIZE:
        return chunk_size_step(body, c);
    case CHUNK_EXTENSION:
        return c == '\r' ? CHUNK_SIZE_LF : CHUNK_EXTENSION;
    case CHUNK_SIZE_LF:
        if (c != '\n')
            return BODY_BROKEN;
        return body->left > 0 ? CHUNK_DATA : TRAILER_START;
    case CHUNK_DATA_CR:
        return c == '\r' ? CHUNK_DATA_LF : BODY_BROKEN;
    case CHUNK_DATA_LF:
        return c == '\n' ? CHUNK_SIZE : BODY_BROKEN;
    case TRAILER_START:
        return c == '\r' ? CHUNKED_END_LF : TRAILER_LINE;
    case TRAILER_LINE:
        return c == '\r' ? TRAILER_LF : TRAILER_LINE;
    case TRAILER_LF:
        return c == '\n' ? TRAILER_START : BODY_BROKEN;
    case CHUNKED_END_LF:
        return c == '\n' ? BODY_ENDED : BODY_BROKEN;
    default:
        return BODY_BROKEN;
    }
}

typedef void body_sink(void *owner, const char *data, size_t length);

// Hands the body's octets to `sink`, in order, and returns how many octets of `data` belonged to the
// body and its framing: all of them, or fewer once the state is BODY_ENDED or BODY_BROKEN.
static inline size_t body_feed(body_decoder *body, const char *data, size_t length, body_sink *sink,
                               void *owner)
{
    const char *at = data, *end = data + length;
    while (at < end && body->state < BODY_ENDED) {
        size_t run = (size_t)(end - at);
        if (body->state == BODY_UNTIL_CLOSE) {
            sink(owner, at, run);
            at = end;
        } else if (body->state == CHUNK_DATA || body->state == BODY_OF_LENGTH) {
            if (run > body->left)
                run = body->left;
            sink(owner, at, run);
            at += run;
            body->left -= run;
            if (body->left == 0)
                body->state = body->state == CHUNK_DATA ? CHUNK_DATA_CR : BODY_ENDED;
        } else {
            body->state = framing_step(body, *at++);
        }
    }
    return (size_t)(at - data);
}

#endif
