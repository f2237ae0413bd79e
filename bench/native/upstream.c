// upstream: the provider of the benchmark. It answers every request with a stream of events, paced or as
// fast as the socket takes them, from one thread with one epoll. Who asks for an upgrade to WebSocket gets
// every event in a binary message of its own, `[DONE]` in another, and then a close frame.
//
//     upstream --port 0 [--tls-port 0 --cert FILE --key FILE] [--default QUERY]
//
// prints `listening PORT [TLS_PORT]` and runs until stdin closes. A line `stats` on stdin, or SIGUSR1, makes
// it print its counters since the start. What to send is told by the request's query, or by QUERY where the
// query leaves it open:
//
//     n=1000      events in the stream, before `[DONE]`
//     size=220    octets of an event, with its empty line
//     rate=0      bursts a second; 0: as fast as the socket takes them
//     burst=1     events in a burst: one chunk of the chunked body, or so many messages
//     first=0     milliseconds before the first event
//
// A burst is one write. Only without a rate, or behind schedule, do several bursts share a write, of up to
// WRITE_BYTES. No burst is sent early; a late one is sent at once, none is dropped. The first
// burst comes `first` ms after the request, the second a part of the period later that differs from stream to
// stream, so that streams which begin together do not keep firing together.
//
// Cost per event is one patch of 30 digits in a template and one send: events are laid out once for every
// size and burst that is asked for, and then only their numbers and times change.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/socket.h>

#include "clock.h"
#include "event.h"
#include "http.h"
#include "loop.h"
#include "timers.h"
#include "websocket.h"

#define WRITE_BYTES 16384            // as much as a TLS record holds
#define TURN_BYTES (16 * WRITE_BYTES) // of one stream without a rate, before the others have their turn
#define HEAD_BYTES 65536
#define BURST_BYTES (4 << 20)
#define SHAPES 64
#define FRAMING_MOST 24 // octets before a chunk or a message
#define SEQ_LIMIT 9999999999ull // what EVENT_SEQ_DIGITS hold

// ---- What a request asks for

typedef struct {
    uint64_t events;
    size_t size;
    size_t burst;
    uint64_t period_ns;
    uint64_t first_ns;
} plan;

static void plan_set(plan *p, slice name, double value)
{
    uint64_t whole = value > 0 && value < 1e18 ? (uint64_t)value : 0;
    if (name.length == 1 && name.text[0] == 'n')
        p->events = whole;
    else if (name.length == 4 && memcmp(name.text, "size", 4) == 0)
        p->size = whole;
    else if (name.length == 5 && memcmp(name.text, "burst", 5) == 0)
        p->burst = whole;
    else if (name.length == 4 && memcmp(name.text, "rate", 4) == 0)
        p->period_ns = value > 0 ? (uint64_t)(NS_PER_SECOND / value) : 0;
    else if (name.length == 5 && memcmp(name.text, "first", 5) == 0)
        p->first_ns = (uint64_t)(value > 0 ? value * 1e6 : 0);
}

// Applies `name=number&…`; other names and other values are somebody else's.
static void plan_read(plan *p, slice query)
{
    const char *end = query.text + query.length;
    for (const char *at = query.text; at < end;) {
        const char *stop = memchr(at, '&', (size_t)(end - at));
        stop = stop != NULL ? stop : end;
        const char *equals = memchr(at, '=', (size_t)(stop - at));
        char number[32] = "", *rest = number;
        if (equals != NULL && stop - equals <= (ptrdiff_t)sizeof number) {
            memcpy(number, equals + 1, (size_t)(stop - equals - 1));
            double value = strtod(number, &rest);
            if (rest != number && *rest == '\0')
                plan_set(p, (slice){at, (size_t)(equals - at)}, value);
        }
        at = stop + 1;
    }
}

static bool plan_possible(const plan *p)
{
    return p->events >= 1 && p->events <= SEQ_LIMIT && p->size >= EVENT_MIN && p->size <= BURST_BYTES &&
           p->burst >= 1 && p->burst <= BURST_BYTES / p->size;
}

// ---- Templates

typedef enum { BARE, CHUNKED, MESSAGES } framing;

// One burst as it goes over the wire, several times in a row.
typedef struct shape {
    struct shape *next;
    size_t size;
    size_t burst;
    framing framing;
    size_t events_at; // behind the chunk's size, or the first message's head
    size_t step;      // octets of an event, with its message's head if it has one
    size_t stride;    // octets of a burst with its framing
    size_t copies;
    char *text;
} shape;

static shape *shapes;
static unsigned shapes_count;

// What stands before so many octets: of a burst in a chunk, of an event in a message.
static size_t framing_begin(char *text, framing framing, size_t octets)
{
    if (framing == MESSAGES)
        return frame_head(text, BINARY, octets);
    return framing == CHUNKED ? (size_t)sprintf(text, "%zx\r\n", octets) : 0;
}

static size_t framing_end(char *text, framing framing)
{
    if (framing != CHUNKED)
        return 0;
    memcpy(text, "\r\n", 2);
    return 2;
}

static void shape_write(const shape *s, char *at, const char *before)
{
    size_t message_head = s->step - s->size;
    memcpy(at, before, s->events_at);
    at += s->events_at - message_head;
    for (size_t event = 0; event < s->burst; event++, at += s->step) {
        memcpy(at, before, message_head);
        event_template(at + message_head, s->size, EVENT_AFTER);
    }
    framing_end(at, s->framing);
}

static shape *shape_make(const plan *p, framing framing)
{
    char before[FRAMING_MOST];
    shape *made = allocate(sizeof *made);
    *made = (shape){.next = shapes, .size = p->size, .burst = p->burst, .framing = framing};
    made->events_at = framing_begin(before, framing, framing == MESSAGES ? p->size : p->size * p->burst);
    made->step = p->size + (framing == MESSAGES ? made->events_at : 0);
    made->stride = made->step * p->burst + (framing == CHUNKED ? made->events_at + 2 : 0);
    made->copies = made->stride < WRITE_BYTES ? WRITE_BYTES / made->stride : 1;
    made->text = allocate(made->stride * made->copies);
    for (size_t copy = 0; copy < made->copies; copy++)
        shape_write(made, made->text + copy * made->stride, before);
    shapes_count++;
    return shapes = made;
}

static shape *shape_for(const plan *p, framing framing)
{
    for (shape *each = shapes; each != NULL; each = each->next)
        if (each->size == p->size && each->burst == p->burst && each->framing == framing)
            return each;
    return shapes_count < SHAPES ? shape_make(p, framing) : NULL;
}

static void patch_events(char *event, size_t step, size_t count, uint64_t seq, const char *time)
{
    for (; count > 0; count--, seq++, event += step) {
        put_digits(event + EVENT_SEQ_AT, EVENT_SEQ_DIGITS, seq);
        memcpy(event + EVENT_TIME_AT, time, EVENT_TIME_DIGITS);
    }
}

// Numbers and stamps `bursts` copies, for the write that follows at once; the slice to write.
static slice shape_bursts(const shape *s, size_t bursts, uint64_t seq)
{
    char time[EVENT_TIME_DIGITS];
    put_digits(time, sizeof time, now_ns());
    char *event = s->text + s->events_at;
    for (size_t copy = 0; copy < bursts; copy++, event += s->stride, seq += s->burst)
        patch_events(event, s->step, s->burst, seq, time);
    return (slice){s->text, bursts * s->stride};
}

// What follows the last event: `[DONE]`, and the end of the body or the connection.
static size_t put_end(char *text, framing framing)
{
    static const char done[] = "data: " EVENT_DONE "\n\n", normal_closure[] = "\x03\xe8"; // 1000
    char *at = text + framing_begin(text, framing, sizeof done - 1);
    memcpy(at, done, sizeof done - 1);
    at += sizeof done - 1;
    at += framing_end(at, framing);
    if (framing == CHUNKED)
        at = (char *)memcpy(at, "0\r\n\r\n", 5) + 5;
    if (framing == MESSAGES) {
        at += frame_head(at, CLOSE, 2);
        at = (char *)memcpy(at, normal_closure, 2) + 2;
    }
    return (size_t)(at - text);
}

// The last burst, of `count` events, with all that ends a stream; the slice to write.
static slice shape_closing(const shape *s, size_t count, uint64_t seq)
{
    static char *text;
    static size_t room;
    if (room < s->stride + 128)
        text = realloc(text, room = s->stride + 128);
    if (text == NULL)
        die("realloc");
    char time[EVENT_TIME_DIGITS];
    put_digits(time, sizeof time, now_ns());
    size_t message_head = s->step - s->size;
    char *at = text + (s->framing == CHUNKED ? framing_begin(text, CHUNKED, count * s->size) : 0);
    memcpy(at, s->text + s->events_at - message_head, count * s->step);
    patch_events(at + message_head, s->step, count - 1, seq, time);
    at += count * s->step;
    event_template(at - s->size, s->size, EVENT_AFTER_LAST);
    patch_events(at - s->size, s->step, 1, seq + count - 1, time);
    at += framing_end(at, s->framing);
    return (slice){text, (size_t)(at - text) + put_end(at, s->framing)};
}

// ---- Connections

typedef enum { READY, BLOCKED, GONE } turn; // go on; wait for the socket or the timer; close

typedef struct {
    source source;
    timer timer;
    int descriptor;
    SSL *tls; // or NULL
    enum { REQUEST_HEAD, REQUEST_BODY, ANSWER } state;
    framing framing; // of the answer
    bool keep_alive;
    bool head_only; // the request's method is HEAD
    body_decoder body;
    char *unread; // octets of the next request, or of a head that is not whole
    size_t unread_length;
    char *unsent; // what the socket did not take
    size_t unsent_at;
    size_t unsent_length;
    plan plan;
    const shape *shape;
    uint64_t seq; // of the next event
    uint64_t due; // of the next burst
    uint64_t phase_ns;
    frame_reader frames; // of a WebSocket, and what follows too
    char accept[ACCEPT_LENGTH + 1];
    char reply[2 + CONTROL_MOST]; // a control frame that waits for its turn
    size_t reply_length;
    bool hung_up; // the client has sent a close frame
} connection;

static timers pacing;
static plan default_plan = {.events = 1000, .size = 220, .burst = 1};
static struct {
    uint64_t streams; // being answered
    uint64_t events;  // written
    uint64_t behind;  // of them, a period or more late, though the socket would have taken them
    uint64_t blocked; // how often a socket was full
    uint64_t messages; // received over WebSockets
} stats;

// Octets read; 0: none yet; -1: there will be none.
static ssize_t transport_receive(connection *c, char *data, size_t room)
{
    if (c->tls == NULL) {
        ssize_t count = recv(c->descriptor, data, room, 0);
        return count > 0 ? count : count < 0 && errno == EAGAIN ? 0 : -1;
    }
    ERR_clear_error();
    int count = SSL_read(c->tls, data, (int)room);
    if (count > 0)
        return count;
    int why = SSL_get_error(c->tls, count);
    return why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? 0 : -1;
}

// Octets taken, which may be fewer than `length`; -1: the peer is gone.
static ssize_t transport_send(connection *c, const char *data, size_t length)
{
    if (c->tls == NULL) {
        ssize_t count = send(c->descriptor, data, length, MSG_NOSIGNAL);
        return count >= 0 ? count : errno == EAGAIN ? 0 : -1;
    }
    size_t sent = 0;
    while (sent < length) {
        ERR_clear_error();
        int count = SSL_write(c->tls, data + sent, (int)(length - sent));
        if (count <= 0) {
            int why = SSL_get_error(c->tls, count);
            return why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? (ssize_t)sent : -1;
        }
        sent += (size_t)count;
    }
    return (ssize_t)sent;
}

static char *copy_of(const char *data, size_t length)
{
    return length > 0 ? memcpy(allocate(length), data, length) : NULL;
}

// Sends, and keeps what the socket does not take; nothing may be unsent before.
static turn send_or_keep(connection *c, slice data)
{
    ssize_t sent = transport_send(c, data.text, data.length);
    if (sent < 0)
        return GONE;
    if ((size_t)sent == data.length)
        return READY;
    stats.blocked++;
    c->unsent_at = 0;
    c->unsent_length = data.length - (size_t)sent;
    c->unsent = copy_of(data.text + sent, c->unsent_length);
    return BLOCKED;
}

static turn send_unsent(connection *c)
{
    ssize_t sent = transport_send(c, c->unsent + c->unsent_at, c->unsent_length - c->unsent_at);
    if (sent < 0)
        return GONE;
    c->unsent_at += (size_t)sent;
    if (c->unsent_at < c->unsent_length)
        return BLOCKED;
    free(c->unsent);
    c->unsent = NULL;
    return READY;
}

// ---- What the client of a WebSocket says

static void reply_with(connection *c, frame_opcode opcode)
{
    size_t head = frame_head(c->reply, opcode, c->frames.length);
    memcpy(c->reply + head, c->frames.control, c->frames.length);
    c->reply_length = head + c->frames.length;
}

static void take_frame(connection *c)
{
    if (c->frames.opcode == PING && !c->hung_up) {
        reply_with(c, PONG);
    } else if (c->frames.opcode == CLOSE) {
        c->hung_up = true;
        if (c->seq <= c->plan.events) // else it answers ours
            reply_with(c, CLOSE);
    } else if (c->frames.opcode < CLOSE) {
        stats.messages += c->frames.final;
    }
}

static turn take_frames(connection *c, char *data, size_t length)
{
    slice passed_over;
    frame_finding found = FRAME_END;
    for (char *end = data + length; found != FRAME_MORE;) {
        found = frame_next(&c->frames, &data, end, &passed_over);
        if (found == FRAME_BROKEN)
            return GONE;
        if (found == FRAME_END)
            take_frame(c);
    }
    return READY;
}

// Takes in all that is there to read. READY, unless the client is gone.
static turn hear(connection *c)
{
    static char input[HEAD_BYTES];
    turn outcome = c->unread_length > 0 ? take_frames(c, c->unread, c->unread_length) : READY;
    c->unread_length = 0;
    while (outcome == READY) {
        ssize_t count = transport_receive(c, input, sizeof input);
        if (count <= 0)
            return count < 0 ? GONE : READY;
        outcome = take_frames(c, input, (size_t)count);
    }
    return outcome;
}

// ---- The answer

static uint64_t next_phase(uint64_t period_ns)
{
    static uint32_t turn_of_circle; // multiples of the golden ratio keep apart, however many there are
    turn_of_circle += 2654435769u;
    return period_ns - (uint64_t)((double)period_ns * (turn_of_circle / 4294967296.0));
}

static size_t bursts_due(const connection *c, uint64_t now)
{
    uint64_t whole = (c->plan.events - c->seq) / c->plan.burst; // without the last, which closes the stream
    uint64_t due = whole < c->shape->copies ? whole : c->shape->copies;
    uint64_t period = c->plan.period_ns;
    if (period == 0)
        return (size_t)due;
    uint64_t late = c->seq == 1 ? 0 : (now - c->due) / period;
    return (size_t)(due < late + 1 ? due : late + 1);
}

static void note_sent(connection *c, uint64_t now, size_t bursts, size_t events, bool held)
{
    stats.events += events;
    for (uint64_t period = c->plan.period_ns; period > 0 && bursts > 0; bursts--) {
        if (now - c->due >= period && !held)
            stats.behind += c->plan.burst;
        c->due += c->seq == 1 ? c->phase_ns : period;
    }
    c->seq += events;
}

static turn send_due(connection *c, uint64_t now, bool held)
{
    size_t bursts = bursts_due(c, now), events = bursts * c->plan.burst;
    slice data;
    if (bursts > 0) {
        data = shape_bursts(c->shape, bursts, c->seq);
    } else {
        events = (size_t)(c->plan.events - c->seq + 1);
        data = shape_closing(c->shape, events, c->seq);
    }
    note_sent(c, now, bursts, events, held);
    return send_or_keep(c, data);
}

// Sends a pong or the answer to a close frame.
static turn send_reply(connection *c)
{
    turn outcome = send_or_keep(c, (slice){c->reply, c->reply_length});
    c->reply_length = 0;
    return outcome;
}

// All that was asked for has been sent. A WebSocket ends when both sides have said so.
static turn answered(const connection *c)
{
    return c->framing != MESSAGES ? READY : BLOCKED;
}

// Sends what is due; READY when the answer has been sent to its end.
static turn answer(connection *c)
{
    uint64_t now = now_ns();
    bool held = c->unsent != NULL; // what is late now is so because of the client
    for (size_t budget = TURN_BYTES / WRITE_BYTES;; budget--) {
        turn outcome = c->unsent != NULL ? send_unsent(c) : READY;
        if (outcome == READY && c->reply_length > 0)
            outcome = send_reply(c);
        if (outcome != READY)
            return outcome;
        if (c->hung_up)
            return GONE;
        if (c->seq > c->plan.events)
            return answered(c);
        if (c->due > now || budget == 0) {
            timers_arm(&pacing, &c->timer, c->due > now ? c->due : now);
            return BLOCKED;
        }
        if (send_due(c, now, held) == GONE)
            return GONE;
    }
}

static turn refuse(connection *c, const char *reason)
{
    char text[256];
    int length = snprintf(text, sizeof text,
                          "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\n"
                          "Connection: close\r\n\r\n%s",
                          strlen(reason), reason);
    transport_send(c, text, (size_t)length);
    return GONE;
}

static slice upgrade_head(const connection *c)
{
    static char text[256];
    int length = snprintf(text, sizeof text,
                          "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                          "Sec-WebSocket-Accept: %s\r\n\r\n",
                          c->accept);
    return (slice){text, (size_t)length};
}

static slice head_for(const connection *c)
{
#define HEAD "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
#define TEXT(text) ((slice){(text), sizeof(text) - 1})
    if (c->framing == MESSAGES)
        return upgrade_head(c);
    if (c->framing == BARE)
        return TEXT(HEAD "Connection: close\r\n\r\n");
    if (!c->keep_alive)
        return TEXT(HEAD "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n");
    return TEXT(HEAD "Transfer-Encoding: chunked\r\n\r\n");
}

// ---- The request

static bool upgrade(connection *c, slice head)
{
    slice key = head_field(head, "sec-websocket-key");
    if (key.length != KEY_LENGTH)
        return false;
    accept_of(key.text, c->accept);
    c->framing = MESSAGES;
    c->frames.masked = true;
    return true;
}

// Reads a request's head: what to answer with, and what body to pass over before.
static turn request_begin(connection *c, slice head)
{
    const char *line_end = memchr(head.text, '\r', head.length);
    slice line = {head.text, (size_t)(line_end - head.text)};
    const char *target = memchr(line.text, ' ', line.length);
    const char *version = memrchr(line.text, ' ', line.length);
    if (target == NULL || target == version)
        return refuse(c, "no request line\n");
    const char *query = memchr(target, '?', (size_t)(version - target));
    c->plan = default_plan;
    if (query != NULL)
        plan_read(&c->plan, (slice){query + 1, (size_t)(version - query - 1)});
    bool chunks = line_end - version == 9 && memcmp(version, " HTTP/1.1", 9) == 0; // 1.0 has none
    c->keep_alive = chunks && !slice_has(head_field(head, "connection"), "close");
    c->head_only = line.length > 5 && memcmp(line.text, "HEAD ", 5) == 0;
    c->framing = chunks ? CHUNKED : BARE;
    if (slice_has(head_field(head, "upgrade"), "websocket") && !upgrade(c, head))
        return refuse(c, "no WebSocket handshake\n");
    c->shape = plan_possible(&c->plan) ? shape_for(&c->plan, c->framing) : NULL;
    if (c->shape == NULL)
        return refuse(c, "no such stream: n, size or burst is out of bounds\n");
    c->body = body_of(head, BODY_ENDED);
    c->state = REQUEST_BODY;
    return READY;
}

static turn answer_begin(connection *c)
{
    c->state = ANSWER;
    stats.streams++;
    c->seq = c->head_only ? c->plan.events + 1 : 1;
    c->due = now_ns() + c->plan.first_ns;
    c->phase_ns = next_phase(c->plan.period_ns);
    if (send_or_keep(c, head_for(c)) == GONE)
        return GONE;
    return c->framing == MESSAGES ? hear(c) : READY;
}

static void answer_end(connection *c)
{
    timers_disarm(&pacing, &c->timer);
    stats.streams--;
    c->state = REQUEST_HEAD;
}

static void pass_over(void *owner, const char *data, size_t length)
{
    (void)owner, (void)data, (void)length;
}

// Takes in a request, or what is there of one, and says how many octets it was. READY: it is whole.
static turn request_take(connection *c, const char *data, size_t length, size_t *used)
{
    *used = 0;
    if (c->state == REQUEST_HEAD) {
        size_t head = head_length(data, length);
        if (head == 0)
            return length < HEAD_BYTES ? BLOCKED : refuse(c, "the head is too long\n");
        if (request_begin(c, (slice){data, head}) == GONE)
            return GONE;
        *used = head;
    }
    *used += body_feed(&c->body, data + *used, length - *used, pass_over, NULL);
    if (c->body.state == BODY_BROKEN)
        return refuse(c, "the body is not framed\n");
    return c->body.state == BODY_ENDED ? READY : BLOCKED;
}

// Reads until a request is whole. What comes behind it is kept for later, and so is a part of a head.
static turn receive(connection *c)
{
    static char input[HEAD_BYTES * 2];
    size_t length = c->unread_length, used = 0;
    if (length > 0)
        memcpy(input, c->unread, length);
    free(c->unread);
    turn outcome = BLOCKED;
    for (ssize_t count = 1; count > 0;) {
        if (length > 0)
            outcome = request_take(c, input, length, &used);
        memmove(input, input + used, length -= used);
        used = 0;
        if (outcome != BLOCKED)
            break;
        count = transport_receive(c, input + length, sizeof input - length);
        length += count > 0 ? (size_t)count : 0;
        outcome = count < 0 ? GONE : BLOCKED;
    }
    c->unread = copy_of(input, length);
    c->unread_length = length;
    return outcome;
}

// Goes on with a connection as far as it goes.
static turn proceed(connection *c)
{
    for (;;) {
        if (c->state == ANSWER) {
            turn outcome = answer(c);
            if (outcome != READY)
                return outcome;
            answer_end(c);
            if (!c->keep_alive)
                return GONE;
        }
        turn outcome = receive(c);
        if (outcome == READY)
            outcome = answer_begin(c);
        if (outcome != READY)
            return outcome;
    }
}

static void connection_close(connection *c)
{
    if (c->state == ANSWER)
        answer_end(c);
    if (c->tls != NULL) {
        SSL_shutdown(c->tls);
        SSL_free(c->tls);
    }
    close(c->descriptor);
    free(c->unread);
    free(c->unsent);
    free(c);
}

static void connection_ready(source *self, uint32_t events)
{
    connection *c = (connection *)self;
    bool gone = (events & (EPOLLERR | EPOLLHUP | EPOLLRDHUP)) != 0;
    if (c->state == ANSWER && c->framing == MESSAGES) // what was said before hanging up is heard
        gone |= hear(c) == GONE;
    if (gone || proceed(c) == GONE)
        connection_close(c);
}

static void run_due_timers(void)
{
    uint64_t now = now_ns();
    while (timers_due(&pacing) <= now) {
        connection *c = pacing.heap[1]->owner;
        timers_disarm(&pacing, &c->timer);
        if (proceed(c) == GONE)
            connection_close(c);
    }
}

// ---- Listeners

typedef struct {
    source source;
    int epoll;
    int descriptor;
    SSL_CTX *tls; // or NULL
} listener;

static connection *connection_open(int descriptor, SSL_CTX *tls)
{
    int on = 1;
    setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    connection *c = allocate(sizeof *c);
    c->source.ready = connection_ready;
    c->timer.owner = c;
    c->descriptor = descriptor;
    if (tls == NULL)
        return c;
    c->tls = SSL_new(tls);
    if (c->tls == NULL || SSL_set_fd(c->tls, descriptor) != 1)
        die("SSL_new");
    SSL_set_accept_state(c->tls);
    return c;
}

static void listener_ready(source *self, uint32_t events)
{
    (void)events;
    listener *l = (listener *)self;
    for (int most = 64; most > 0; most--) {
        int descriptor = accept4(l->descriptor, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (descriptor < 0 && (errno == EAGAIN || errno == ECONNABORTED || errno == EINTR))
            return;
        if (descriptor < 0)
            die("accept");
        connection *c = connection_open(descriptor, l->tls);
        watch(l->epoll, descriptor, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, &c->source);
    }
}

// Listens on a port of 127.0.0.1, and returns which; any that is free for 0.
static unsigned listener_open(listener *l, int epoll, uint16_t port, SSL_CTX *tls)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int on = 1, descriptor = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (descriptor < 0 || setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0)
        die("socket");
    if (bind(descriptor, (struct sockaddr *)&address, sizeof address) != 0)
        die("bind");
    if (listen(descriptor, 65535) != 0) // the kernel caps it at net.core.somaxconn
        die("listen");
    if (getsockname(descriptor, (struct sockaddr *)&address, &length) != 0)
        die("getsockname");
    *l = (listener){{listener_ready}, epoll, descriptor, tls};
    watch(epoll, descriptor, EPOLLIN, &l->source);
    return ntohs(address.sin_port);
}

static SSL_CTX *tls_context(const char *certificate, const char *key)
{
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    if (context == NULL || SSL_CTX_use_certificate_chain_file(context, certificate) != 1 ||
        SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != 1) {
        ERR_print_errors_fp(stderr);
        exit(EXIT_FAILURE);
    }
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    return context;
}

// ---- Counters, on demand

static void stats_print(void)
{
    printf("{\"streams\":%llu,\"events\":%llu,\"behind\":%llu,\"blocked\":%llu,"
           "\"messages\":%llu,\"cpu_ns\":%llu}\n",
           (unsigned long long)stats.streams, (unsigned long long)stats.events,
           (unsigned long long)stats.behind, (unsigned long long)stats.blocked,
           (unsigned long long)stats.messages, (unsigned long long)cpu_ns());
    fflush(stdout);
}

static void commands_ready(source *self, uint32_t events)
{
    (void)events;
    command_input *input = (command_input *)self;
    char line[COMMAND_BYTES];
    commands_receive(input);
    while (commands_next(input, line))
        if (strcmp(line, "stats") == 0)
            stats_print();
}

typedef struct {
    source source;
    int descriptor;
} signal_input;

static void signal_ready(source *self, uint32_t events)
{
    (void)events;
    struct signalfd_siginfo caught;
    if (read(((signal_input *)self)->descriptor, &caught, sizeof caught) > 0)
        stats_print();
}

static void watch_signal(int epoll, signal_input *input, int number)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, number);
    sigprocmask(SIG_BLOCK, &set, NULL);
    *input = (signal_input){{signal_ready}, signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC)};
    if (input->descriptor < 0)
        die("signalfd");
    watch(epoll, input->descriptor, EPOLLIN, &input->source);
}

// ---- The command line

typedef struct {
    uint16_t port;
    bool tls;
    uint16_t tls_port;
    const char *certificate;
    const char *key;
} options;

static options options_read(int argc, char **argv)
{
    static const struct option known[] = {
        {"port", required_argument, NULL, 'p'}, {"tls-port", required_argument, NULL, 't'},
        {"cert", required_argument, NULL, 'c'}, {"key", required_argument, NULL, 'k'},
        {"default", required_argument, NULL, 'd'}, {NULL, 0, NULL, 0},
    };
    options o = {0};
    for (int name; (name = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        switch (name) {
        case 'p':
            o.port = (uint16_t)number(optarg);
            break;
        case 't':
            o.tls = true;
            o.tls_port = (uint16_t)number(optarg);
            break;
        case 'c':
            o.certificate = optarg;
            break;
        case 'k':
            o.key = optarg;
            break;
        case 'd':
            plan_read(&default_plan, (slice){optarg, strlen(optarg)});
            break;
        default:
            exit(2);
        }
    }
    if (optind < argc || (o.tls && (o.certificate == NULL || o.key == NULL)))
        misused("upstream --port N [--tls-port N --cert FILE --key FILE] [--default QUERY]");
    if (!plan_possible(&default_plan))
        misused("--default: n, size or burst is out of bounds");
    return o;
}

int main(int argc, char **argv)
{
    static listener plain, tls;
    static signal_input signals;
    static command_input commands = {.source = {commands_ready}};
    options o = options_read(argc, argv);
    raise_descriptor_limit();
    signal(SIGPIPE, SIG_IGN); // OpenSSL writes without MSG_NOSIGNAL
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    watch(epoll, STDIN_FILENO, EPOLLIN, &commands.source);
    watch_signal(epoll, &signals, SIGUSR1);
    printf("listening %u", listener_open(&plain, epoll, o.port, NULL));
    if (o.tls)
        printf(" %u", listener_open(&tls, epoll, o.tls_port, tls_context(o.certificate, o.key)));
    printf("\n");
    fflush(stdout);
    while (!commands.ended) {
        loop_turn(epoll, timers_due(&pacing));
        run_due_timers();
    }
    return 0;
}
