// The little of WebSocket (RFC 6455) that both programs need: the answer to a handshake's key, a frame's
// head, and the frames in what was read, however the reads cut them.
#ifndef WEBSOCKET_H
#define WEBSOCKET_H

#include <openssl/evp.h>
#include <openssl/sha.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "http.h"

// ---- The handshake

#define KEY_LENGTH 24    // 16 octets in base64
#define ACCEPT_LENGTH 28 // the 20 octets of a SHA-1

// What Sec-WebSocket-Accept says to a key of KEY_LENGTH (RFC 6455, 4.2.2), with a zero behind it.
static inline void accept_of(const char *key, char accept[ACCEPT_LENGTH + 1])
{
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    unsigned char text[KEY_LENGTH + sizeof guid - 1], digest[SHA_DIGEST_LENGTH];
    memcpy(text, key, KEY_LENGTH);
    memcpy(text + KEY_LENGTH, guid, sizeof guid - 1);
    SHA1(text, sizeof text, digest);
    EVP_EncodeBlock((unsigned char *)accept, digest, sizeof digest);
}

// ---- Frames

typedef enum { CONTINUATION = 0, TEXT = 1, BINARY = 2, CLOSE = 8, PING = 9, PONG = 10 } frame_opcode;

#define FRAME_FINAL 0x80
#define FRAME_MASKED 0x80 // in the second octet
#define FRAME_HEAD_MOST 14
#define CONTROL_MOST 125 // octets of a control frame's payload
#define MASK_LENGTH 4

// Writes the head of a whole message, or of a control frame, without a mask, and returns its length.
static inline size_t frame_head(char *head, frame_opcode opcode, uint64_t length)
{
    unsigned octets = length < 126 ? 0 : length <= UINT16_MAX ? 2 : 8;
    head[0] = (char)(FRAME_FINAL | opcode);
    head[1] = (char)(octets == 0 ? length : octets == 2 ? 126 : 127);
    for (unsigned at = 0; at < octets; at++)
        head[2 + at] = (char)(length >> 8 * (octets - 1 - at));
    return 2 + octets;
}

// Applies a mask, or takes it off, `offset` octets behind the payload's beginning.
static inline void mask_apply(char *data, size_t length, const unsigned char mask[MASK_LENGTH], uint64_t offset)
{
    for (size_t at = 0; at < length; at++)
        data[at] ^= (char)mask[(offset + at) % MASK_LENGTH];
}

// Writes a frame that a client may send: with its mask, which need not surprise anybody here. `frame` has room
// for FRAME_HEAD_MOST octets more than the payload.
static inline size_t frame_masked(char *frame, frame_opcode opcode, const char *payload, size_t length)
{
    static const unsigned char mask[MASK_LENGTH] = {0x5a, 0xc3, 0x96, 0x0f};
    size_t head = frame_head(frame, opcode, length);
    frame[1] = (char)(frame[1] | FRAME_MASKED);
    memcpy(frame + head, mask, MASK_LENGTH);
    memcpy(frame + head + MASK_LENGTH, payload, length);
    mask_apply(frame + head + MASK_LENGTH, length, mask, 0);
    return head + MASK_LENGTH + length;
}

// What has been read of a frame. Its owner sets `masked` before the first: whether the peer must mask.
typedef struct {
    enum { FRAME_HEAD, FRAME_PAYLOAD } state;
    bool masked;
    bool final;
    bool fragmented; // a message has begun that is not whole
    frame_opcode opcode;
    unsigned head_length; // octets of the head so far
    unsigned char head[FRAME_HEAD_MOST];
    uint64_t length; // of the payload
    uint64_t taken;  // of it so far
    char control[CONTROL_MOST]; // a control frame's payload
} frame_reader;

typedef enum {
    FRAME_MORE,   // octets are needed
    FRAME_PIECE,  // of a data frame's payload
    FRAME_END,    // of a frame
    FRAME_BROKEN, // this is no WebSocket
} frame_finding;

// Octets of a longer length, behind the head's first two.
static inline unsigned frame_length_octets(const frame_reader *f)
{
    unsigned length = f->head[1] & 0x7f;
    return length < 126 ? 0 : length == 126 ? 2 : 8;
}

static inline bool frame_head_whole(const frame_reader *f)
{
    if (f->head_length < 2)
        return false;
    unsigned mask = (f->head[1] & FRAME_MASKED) != 0 ? MASK_LENGTH : 0;
    return f->head_length == 2 + frame_length_octets(f) + mask;
}

// RFC 6455, 5.2 to 5.5, as far as a head can offend against it.
static inline bool frame_allowed(frame_reader *f)
{
    bool known = f->opcode <= BINARY || (f->opcode >= CLOSE && f->opcode <= PONG);
    bool masked = (f->head[1] & FRAME_MASKED) != 0;
    if (!known || masked != f->masked || (f->head[0] & 0x70) != 0)
        return false;
    if (f->opcode >= CLOSE)
        return f->final && f->length <= CONTROL_MOST;
    if ((f->opcode == CONTINUATION) != f->fragmented)
        return false;
    f->fragmented = !f->final;
    return true;
}

static inline bool frame_begin(frame_reader *f)
{
    unsigned octets = frame_length_octets(f);
    f->final = (f->head[0] & FRAME_FINAL) != 0;
    f->opcode = f->head[0] & 0x0f;
    f->length = octets == 0 ? f->head[1] & 0x7f : 0;
    for (unsigned at = 0; at < octets; at++)
        f->length = f->length << 8 | f->head[2 + at];
    f->taken = 0;
    f->state = FRAME_PAYLOAD;
    return frame_allowed(f);
}

// Goes on from `*at` to the next finding, and sets `*at` behind it. A piece is unmasked where it lies; of a
// control frame, the payload is collected instead. To be called until it finds FRAME_MORE: at the end of
// what was read, a frame's end may still be to tell.
static inline frame_finding frame_next(frame_reader *f, char **at, char *end, slice *piece)
{
    for (; f->state == FRAME_HEAD; ++*at) {
        if (*at == end)
            return FRAME_MORE;
        f->head[f->head_length++] = (unsigned char)**at;
        if (frame_head_whole(f) && !frame_begin(f))
            return FRAME_BROKEN;
    }
    if (f->taken == f->length) {
        f->state = FRAME_HEAD;
        f->head_length = 0;
        return FRAME_END;
    }
    if (*at == end)
        return FRAME_MORE;
    uint64_t left = f->length - f->taken, here = (uint64_t)(end - *at);
    *piece = (slice){*at, (size_t)(left < here ? left : here)};
    if (f->masked)
        mask_apply(*at, piece->length, f->head + f->head_length - MASK_LENGTH, f->taken);
    if (f->opcode >= CLOSE)
        memcpy(f->control + f->taken, piece->text, piece->length);
    f->taken += piece->length;
    *at += piece->length;
    return f->opcode >= CLOSE ? frame_next(f, at, end, piece) : FRAME_PIECE;
}

#endif
