// load: the clients of the benchmark. It opens connections, sends one request on each, takes the streams
// apart down to the events' marks, and finds every event that is missing, repeated or late; from one thread
// with one epoll.
//
//     load --port P --streams N --target '/v1/chat/completions?n=1000' [--again]
//     load --port P --requests K --concurrency C --target …
//
// The first form holds N streams: it prints `{"ready":true,…}` once each has its response head (or has
// failed), and runs until `stop` or the end of stdin. A stream that ends is not asked for again, unless with
// --again. The second form makes K requests over C connections and ends by itself. Both keep connections
// alive as long as the server does.
//
//     --host 127.0.0.1    an IPv4 address
//     --method GET        POST where there is a body
//     --header 'K: V'     as often as needed
//     --body FILE|TEXT    the contents of FILE if there is one; JSON, unless a header says otherwise
//     --ramp 2000         connections opened a second; 0: all at once
//     --expect N          events in a whole stream; else the `n` in the target's query; 0: any number
//     --no-latency        the events' times are old, or another machine's
//     --websocket MODE    ask for an upgrade first; then
//         bridge          send the body in a `start` frame, and take the stream out of the frames that answer;
//                         the next request goes over the same connection
//         messages        take the stream out of the binary messages that come, until a close frame; with
//                         --answer N, answer each with one of N octets
//         idle            say nothing further: a connection is open once it is upgraded
//
// A line `mark` on stdin prints the counters since the previous mark (or the start) as one line of JSON, and
// begins anew; the last line, printed at the end, has `"final":true`. Times are in nanoseconds.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/random.h>
#include <sys/socket.h>

#include "clock.h"
#include "event.h"
#include "histogram.h"
#include "http.h"
#include "loop.h"
#include "websocket.h"

#define INPUT_BYTES (128 << 10)
#define HEAD_BYTES (64 << 10)
#define REQUEST_BYTES (4 << 20)

// ---- Counters

typedef enum {
    REFUSED,   // the connection was not accepted
    RESET,     // it broke
    STATUS,    // other than 200, or 101 where an upgrade was asked for
    HEAD,      // that is none of HTTP/1.1's
    HANDSHAKE, // a 101 that does not agree to what was asked
    FRAMING,   // a body or a WebSocket that is framed wrongly, or octets behind a body's end
    MESSAGE,   // one that is no part of the stream: an error, or of a kind that nobody knows
    HELD_UP,   // a message that should have been answered, and could not: the one before is still unsent
    GAP,       // events missing in between
    REPEAT,    // an event that has been before
    EARLY_END, // the connection or the body ended before the stream was whole
    NO_DONE,   // all events, but no [DONE] behind them
    ERROR_KINDS,
} error_kind;

static const char *const error_names[ERROR_KINDS] = {
    "refused", "reset", "status", "head", "handshake", "framing",
    "message", "held_up", "gap", "repeat", "early_end", "no_done",
};

static struct {
    uint64_t since;
    uint64_t cpu_since;
    uint64_t events;
    uint64_t bytes; // of bodies, without their framing
    uint64_t done;  // streams that came to their proper end
    uint64_t errors[ERROR_KINDS];
    histogram latency; // from an event's write to its reading
    histogram ttfb;    // from the request's write to its response head, or to the `open` that answers a start
    histogram ttfe;    // from the request's write to its first event
} counters;

static void counters_reset(uint64_t now, uint64_t cpu)
{
    memset(&counters, 0, sizeof counters);
    counters.since = now;
    counters.cpu_since = cpu;
}

static uint64_t errors_sum(void)
{
    uint64_t sum = 0;
    for (unsigned kind = 0; kind < ERROR_KINDS; kind++)
        sum += counters.errors[kind];
    return sum;
}

static void error_kinds_print(void)
{
    const char *comma = "";
    printf(",\"error_kinds\":{");
    for (unsigned kind = 0; kind < ERROR_KINDS; kind++) {
        if (counters.errors[kind] == 0)
            continue;
        printf("%s\"%s\":%llu", comma, error_names[kind], (unsigned long long)counters.errors[kind]);
        comma = ",";
    }
    printf("}");
}

// Prints the window that ends now, and begins the next one with the same instant.
static void counters_print(uint64_t open, bool final)
{
    uint64_t now = now_ns(), cpu = cpu_ns();
    printf("{\"t_ns\":%llu,\"events\":%llu,\"bytes\":%llu,\"done\":%llu,\"errors\":%llu",
           (unsigned long long)(now - counters.since), (unsigned long long)counters.events,
           (unsigned long long)counters.bytes, (unsigned long long)counters.done,
           (unsigned long long)errors_sum());
    error_kinds_print();
    printf(",\"open\":%llu", (unsigned long long)open);
    histogram_print(&counters.latency, "latency_ns");
    histogram_print(&counters.ttfb, "ttfb_ns");
    histogram_print(&counters.ttfe, "ttfe_ns");
    printf(",\"cpu_ns\":%llu%s}\n", (unsigned long long)(cpu - counters.cpu_since),
           final ? ",\"final\":true" : "");
    fflush(stdout);
    counters_reset(now, cpu);
}

// ---- Connections

typedef enum { NO_WEBSOCKET, BRIDGE, MESSAGES, SILENCE } websocket_mode;

#define MESSAGE_KEPT 256 // octets of a message's beginning: all of those that are no events

typedef struct connection {
    source source;
    struct connection *next; // of those that wait to be opened
    int descriptor;          // -1: closed
    enum { IDLE, RESPONSE_HEAD, RESPONSE_BODY, SOCKET } state;
    bool settled;        // its first response has begun, or has failed
    bool reused;         // the request is not the connection's first
    bool keep_alive;     // as far as the response says
    bool awaits_room;    // for what is unsent
    bool answered;       // the response's head, or the `open`, is there
    bool done_seen;
    bool event_seen;     // in the message at hand
    slice unsent;        // of the request, a start, an answer or a pong
    uint64_t requested;  // when
    uint64_t last_seq;
    body_decoder body;
    event_scanner scanner;
    char *head; // that is not whole
    size_t head_length;
    frame_reader frames;
    char message[MESSAGE_KEPT];
    size_t message_length;
    char control[FRAME_HEAD_MOST + CONTROL_MOST]; // a pong or a close frame, as it is sent
} connection;

static struct {
    struct sockaddr_in address;
    websocket_mode websocket;
    slice request;
    slice start;                    // the frame that asks for a stream over the bridge
    slice answer;                   // the frame that answers a message, or nothing
    char accept[ACCEPT_LENGTH + 1]; // what the request's key must be answered with
    uint64_t expected;              // events in a stream, 0: any number
    bool latency;
    bool repeats;     // a connection whose request is done makes another
    bool exits;       // when all requests have been answered
    uint64_t count;   // of connections
    uint64_t ramp_ns; // between two openings
} settings;

static struct {
    int epoll;
    connection *connections;
    uint64_t unasked;    // requests still to make
    uint64_t unanswered; // requests whose outcome is open, asked or not
    uint64_t settled;    // connections
    uint64_t open;       // connections with a request on them
    connection *waiting, **waiting_end;
    uint64_t next_opening;
    uint64_t arrival; // when the octets at hand were read
} run = {.waiting_end = &run.waiting};

static void wait_to_open(connection *c)
{
    uint64_t now = now_ns();
    if (run.waiting == NULL && run.next_opening < now)
        run.next_opening = now; // what was not opened while nothing waited is not made up for
    c->next = NULL;
    *run.waiting_end = c;
    run.waiting_end = &c->next;
}

static void disconnect(connection *c)
{
    close(c->descriptor);
    c->descriptor = -1;
    c->state = IDLE;
}

static void settle(connection *c)
{
    run.settled += !c->settled;
    c->settled = true;
}

static bool asks_again(void)
{
    return settings.repeats && run.unasked > 0;
}

// A request has had its outcome.
static void conclude(connection *c)
{
    settle(c);
    run.open--;
    run.unanswered--;
    free(c->head);
    c->head = NULL;
    c->head_length = 0;
}

static void fail(connection *c, error_kind kind)
{
    counters.errors[kind]++;
    conclude(c);
    disconnect(c);
    if (asks_again())
        wait_to_open(c);
}

// ---- Requests

static void reconnect(connection *c);

// The connection is gone before its response was. A server may close one that it kept alive while the next
// request is on its way: RFC 9112, 9.3.1, lets the client ask again on a new one.
static void lose(connection *c, error_kind kind)
{
    if (c->reused && c->state == RESPONSE_HEAD && c->head_length == 0) {
        disconnect(c);
        reconnect(c);
    } else {
        fail(c, kind);
    }
}

static error_kind error_of(int number)
{
    return number == ECONNREFUSED ? REFUSED : RESET;
}

// Sends what is unsent, as far as there is room for it.
static void flush(connection *c)
{
    ssize_t sent = send(c->descriptor, c->unsent.text, c->unsent.length, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) {
        lose(c, error_of(errno));
        return;
    }
    c->unsent.text += sent > 0 ? sent : 0;
    c->unsent.length -= sent > 0 ? (size_t)sent : 0;
    bool awaits_room = c->unsent.length > 0;
    if (awaits_room != c->awaits_room)
        watch_instead(run.epoll, c->descriptor, EPOLLIN | (awaits_room ? EPOLLOUT : 0), &c->source);
    c->awaits_room = awaits_room;
}

static void begin_stream(connection *c)
{
    c->answered = false;
    c->done_seen = false;
    c->last_seq = 0;
    c->scanner = (event_scanner){0};
}

static void begin_request(connection *c, bool reused)
{
    c->state = RESPONSE_HEAD;
    c->reused = reused;
    begin_stream(c);
    c->requested = now_ns();
    c->unsent = settings.request;
    flush(c);
}

// Asks for a stream over an upgraded connection.
static void start(connection *c)
{
    begin_stream(c);
    c->requested = now_ns();
    c->unsent = settings.start;
    flush(c);
}

static void reconnect(connection *c)
{
    int on = 1;
    c->awaits_room = false;
    c->descriptor = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->descriptor < 0)
        die("socket");
    setsockopt(c->descriptor, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    const struct sockaddr *address = (const struct sockaddr *)&settings.address;
    if (connect(c->descriptor, address, sizeof settings.address) != 0 && errno != EINPROGRESS) {
        fail(c, error_of(errno));
        return;
    }
    watch(run.epoll, c->descriptor, EPOLLIN, &c->source);
    begin_request(c, false);
}

static void ask(connection *c)
{
    run.unasked--;
    run.open++;
    if (c->state == SOCKET)
        start(c);
    else if (c->descriptor >= 0)
        begin_request(c, true);
    else
        reconnect(c);
}

// When the next of the waiting connections is to be opened.
static uint64_t next_opening(void)
{
    return run.waiting != NULL && run.unasked > 0 ? run.next_opening : NEVER;
}

static void open_due(void)
{
    uint64_t now = run.waiting != NULL ? now_ns() : 0;
    for (int most = 64; most > 0 && next_opening() <= now; most--) {
        connection *c = run.waiting;
        run.waiting = c->next;
        if (run.waiting == NULL)
            run.waiting_end = &run.waiting;
        run.next_opening += settings.ramp_ns;
        ask(c);
    }
}

// ---- Responses

// The head of a response, or the `open` of a stream over the bridge.
static void take_answer(connection *c)
{
    c->answered = true;
    histogram_add(&counters.ttfb, run.arrival - c->requested);
    settle(c);
}

// The stream is whole, as far as its framing tells.
static void finish(connection *c)
{
    if (c->last_seq < settings.expected)
        counters.errors[EARLY_END]++;
    else if (!c->done_seen)
        counters.errors[NO_DONE]++;
    else
        counters.done++;
    conclude(c);
    if (!c->keep_alive || !asks_again())
        disconnect(c);
    if (asks_again())
        ask(c);
}

static void take_event(connection *c)
{
    uint64_t seq = c->scanner.seq, time = c->scanner.time;
    counters.events++;
    if (seq == c->last_seq + 1) {
        c->last_seq = seq;
    } else {
        counters.errors[seq > c->last_seq ? GAP : REPEAT]++;
        c->last_seq = seq > c->last_seq ? seq : c->last_seq;
    }
    if (c->requested != 0) {
        histogram_add(&counters.ttfe, run.arrival - c->requested);
        c->requested = 0;
    }
    if (settings.latency)
        histogram_add(&counters.latency, run.arrival > time ? run.arrival - time : 0);
}

static void take_data(void *owner, const char *data, size_t length)
{
    connection *c = owner;
    const char *end = data + length;
    counters.bytes += length;
    while (data < end) {
        event_finding finding;
        data = scan(&c->scanner, data, end, &finding);
        c->event_seen |= finding != FOUND_NOTHING;
        if (finding == FOUND_EVENT)
            take_event(c);
        else if (finding == FOUND_DONE)
            c->done_seen = true;
    }
}

// Takes octets of the body.
static void take_body(connection *c, const char *data, size_t length)
{
    size_t used = body_feed(&c->body, data, length, take_data, c);
    if (c->body.state == BODY_BROKEN || (c->body.state == BODY_ENDED && used < length))
        fail(c, FRAMING);
    else if (c->body.state == BODY_ENDED)
        finish(c);
}

// ---- What comes over a WebSocket

static bool begins_with(const connection *c, const char *text)
{
    size_t length = strlen(text);
    return c->message_length >= length && memcmp(c->message, text, length) == 0;
}

// Takes a whole message of the bridge. All are objects whose first member is their type.
static void take_bridge_message(connection *c)
{
    slice text = {c->message, c->message_length};
    if (begins_with(c, "{\"type\":\"event\"") && c->answered && c->event_seen)
        return;
    if (begins_with(c, "{\"type\":\"open\"") && !c->answered)
        take_answer(c);
    else if (begins_with(c, "{\"type\":\"end\"") && slice_has(text, "\"reason\":\"complete\""))
        finish(c);
    else
        fail(c, begins_with(c, "{\"type\":\"end\"") ? EARLY_END : MESSAGE);
}

static void answer_message(connection *c)
{
    if (c->unsent.length > 0) {
        counters.errors[HELD_UP]++;
        return;
    }
    c->unsent = settings.answer;
    flush(c);
}

static bool is_expected(const connection *c)
{
    frame_opcode expected = settings.websocket == BRIDGE ? TEXT : BINARY;
    return c->frames.opcode == expected || c->frames.opcode == CONTINUATION;
}

static void take_message(connection *c)
{
    if (settings.websocket == BRIDGE && is_expected(c))
        take_bridge_message(c);
    else if (!is_expected(c) || !c->event_seen)
        fail(c, MESSAGE);
    else if (settings.answer.length > 0)
        answer_message(c);
    c->message_length = 0;
    c->event_seen = false;
}

static void take_message_piece(connection *c, slice piece)
{
    size_t room = sizeof c->message - c->message_length;
    size_t kept = piece.length < room ? piece.length : room;
    memcpy(c->message + c->message_length, piece.text, kept);
    c->message_length += kept;
    take_data(c, piece.text, piece.length);
}

// No frame fits between the octets of one that is on its way; then the next ping is answered.
static void answer_ping(connection *c)
{
    if (c->unsent.length > 0)
        return;
    c->unsent = (slice){c->control, frame_masked(c->control, PONG, c->frames.control, c->frames.length)};
    flush(c);
}

static void answer_close(connection *c)
{
    if (c->unsent.length > 0)
        return;
    size_t length = frame_masked(c->control, CLOSE, c->frames.control, c->frames.length);
    send(c->descriptor, c->control, length, MSG_NOSIGNAL); // whatever becomes of it
}

static void take_close(connection *c)
{
    if (settings.websocket == MESSAGES) {
        answer_close(c);
        c->keep_alive = false;
        finish(c);
    } else {
        fail(c, EARLY_END);
    }
}

static void take_frame_end(connection *c)
{
    switch (c->frames.opcode) {
    case PING: answer_ping(c); break;
    case CLOSE: take_close(c); break;
    case PONG: break;
    default:
        if (c->frames.final)
            take_message(c);
    }
}

static void take_frames(connection *c, char *data, size_t length)
{
    for (char *end = data + length; c->state == SOCKET;) {
        slice piece;
        switch (frame_next(&c->frames, &data, end, &piece)) {
        case FRAME_MORE: return;
        case FRAME_BROKEN: fail(c, FRAMING); return;
        case FRAME_PIECE: take_message_piece(c, piece); break;
        case FRAME_END: take_frame_end(c); break;
        }
    }
}

static bool agreed(slice head)
{
    slice accept = head_field(head, "sec-websocket-accept");
    return accept.length == ACCEPT_LENGTH && memcmp(accept.text, settings.accept, ACCEPT_LENGTH) == 0 &&
           slice_has(head_field(head, "upgrade"), "websocket") &&
           slice_has(head_field(head, "connection"), "upgrade") &&
           head_field(head, "sec-websocket-extensions").length == 0;
}

static void take_upgrade(connection *c, slice head)
{
    if (!agreed(head)) {
        fail(c, HANDSHAKE);
        return;
    }
    c->state = SOCKET;
    c->keep_alive = true;
    c->frames = (frame_reader){0};
    c->message_length = 0;
    c->event_seen = false;
    if (settings.websocket == BRIDGE)
        start(c);
    else
        take_answer(c);
}

// ---- Heads

static void take_response(connection *c, slice head)
{
    slice connection_field = head_field(head, "connection");
    c->keep_alive = head.text[7] == '1' ? !slice_has(connection_field, "close")
                                        : slice_has(connection_field, "keep-alive");
    c->body = body_of(head, BODY_UNTIL_CLOSE);
    c->state = RESPONSE_BODY;
    c->keep_alive &= c->body.state != BODY_UNTIL_CLOSE;
    take_answer(c);
}

// Goes on with what follows the head.
static void take_rest(connection *c, char *data, size_t length)
{
    if (c->state == RESPONSE_BODY)
        take_body(c, data, length);
    else if (c->state == SOCKET)
        take_frames(c, data, length);
}

// Goes on from a whole head that is followed by `data`.
static void take_head(connection *c, slice head, char *data, size_t length)
{
    bool upgrades = settings.websocket != NO_WEBSOCKET;
    if (memcmp(head.text, "HTTP/1.", 7) != 0)
        fail(c, HEAD);
    else if (memcmp(head.text + 8, upgrades ? " 101" : " 200", 4) != 0)
        fail(c, STATUS);
    else if (upgrades)
        take_upgrade(c, head);
    else
        take_response(c, head);
    if (c->state == IDLE)
        return;
    free(c->head);
    c->head = NULL;
    take_rest(c, data, length);
}

// Takes octets of the head, of which `c->head` has those of earlier reads.
static void take_head_part(connection *c, char *data, size_t length)
{
    size_t before = c->head_length;
    if (before > 0) {
        c->head = realloc(c->head, before + length);
        if (c->head == NULL)
            die("realloc");
        memcpy(c->head + before, data, length);
    }
    const char *text = before > 0 ? c->head : data;
    size_t whole = head_length(text, before + length);
    if (whole > 0) {
        c->head_length = 0;
        take_head(c, (slice){text, whole}, data + (whole - before), before + length - whole);
    } else if (before + length > HEAD_BYTES) {
        fail(c, HEAD);
    } else if (before == 0) {
        c->head = memcpy(allocate(length), data, length);
        c->head_length = length;
    } else {
        c->head_length += length;
    }
}

static void take_end(connection *c)
{
    if (c->state == RESPONSE_BODY && c->body.state == BODY_UNTIL_CLOSE)
        finish(c);
    else
        lose(c, EARLY_END);
}

static void connection_ready(source *self, uint32_t events)
{
    static char input[INPUT_BYTES];
    connection *c = (connection *)self;
    if ((events & EPOLLOUT) != 0) {
        flush(c);
        return; // what there is to read is reported again
    }
    ssize_t count = recv(c->descriptor, input, sizeof input, 0);
    if (count < 0 && errno == EAGAIN)
        return;
    run.arrival = now_ns();
    if (count < 0)
        lose(c, error_of(errno));
    else if (count == 0)
        take_end(c);
    else if (c->state == RESPONSE_HEAD)
        take_head_part(c, input, (size_t)count);
    else
        take_rest(c, input, (size_t)count);
}

// ---- The command line

typedef struct {
    const char *host;
    uint64_t port;
    const char *method;
    const char *target;
    const char *body;
    size_t body_length;
    char headers[HEAD_BYTES];
    size_t headers_length;
} request_parts;

static void add_header(request_parts *r, const char *header)
{
    size_t room = sizeof r->headers - r->headers_length;
    size_t length = (size_t)snprintf(r->headers + r->headers_length, room, "%s\r\n", header);
    if (length >= room || strchr(header, ':') == NULL)
        misused("--header takes 'Name: value'");
    r->headers_length += length;
}

static bool has_header(const request_parts *r, const char *name)
{
    return head_field((slice){r->headers, r->headers_length}, name).length > 0;
}

static void read_body(request_parts *r, const char *file_or_text)
{
    static char contents[REQUEST_BYTES];
    r->body = file_or_text;
    r->body_length = strlen(file_or_text);
    FILE *file = fopen(file_or_text, "rb");
    if (file == NULL)
        return;
    r->body = contents;
    r->body_length = fread(contents, 1, sizeof contents, file);
    if (ferror(file) != 0 || r->body_length == sizeof contents)
        misused("--body: the file cannot be read, or is too long");
    fclose(file);
}

static void build_upgrade(request_parts *r)
{
    unsigned char octets[16];
    char key[KEY_LENGTH + 1], line[64];
    if (getrandom(octets, sizeof octets, 0) != sizeof octets)
        die("getrandom");
    EVP_EncodeBlock((unsigned char *)key, octets, sizeof octets);
    accept_of(key, settings.accept);
    snprintf(line, sizeof line, "Sec-WebSocket-Key: %s", key); // one for all connections: nobody compares
    add_header(r, line);
    add_header(r, "Connection: Upgrade");
    add_header(r, "Upgrade: websocket");
    add_header(r, "Sec-WebSocket-Version: 13");
}

static slice built_frame(frame_opcode opcode, const char *payload, size_t length)
{
    char *frame = allocate(length + FRAME_HEAD_MOST);
    return (slice){frame, frame_masked(frame, opcode, payload, length)};
}

static void build_answer(size_t length)
{
    char *payload = allocate(length);
    settings.answer = built_frame(BINARY, payload, length);
    free(payload);
}

static void build_start(const request_parts *r)
{
    char *text = allocate(r->body_length + 64);
    int before = sprintf(text, "{\"type\":\"start\",\"body\":");
    memcpy(text + before, r->body, r->body_length);
    text[(size_t)before + r->body_length] = '}';
    settings.start = built_frame(TEXT, text, (size_t)before + r->body_length + 1);
    free(text);
}

static void build_body(request_parts *r, const char *method)
{
    char line[64];
    if (r->body != NULL && !has_header(r, "content-type"))
        add_header(r, "Content-Type: application/json");
    if (r->body != NULL || strcmp(method, "GET") != 0) {
        snprintf(line, sizeof line, "Content-Length: %zu", r->body_length);
        add_header(r, line);
    }
}

static void build_request(request_parts *r)
{
    char line[128];
    if (!has_header(r, "host")) {
        snprintf(line, sizeof line, "Host: %s:%u", r->host, (unsigned)r->port);
        add_header(r, line);
    }
    bool upgrades = settings.websocket != NO_WEBSOCKET;
    const char *method = upgrades ? "GET" : r->method != NULL ? r->method : r->body != NULL ? "POST" : "GET";
    if (upgrades)
        build_upgrade(r);
    else
        build_body(r, method);
    size_t body_length = upgrades ? 0 : r->body_length;
    char *text = allocate(strlen(method) + strlen(r->target) + r->headers_length + body_length + 32);
    int head = sprintf(text, "%s %s HTTP/1.1\r\n%s\r\n", method, r->target, r->headers);
    if (body_length > 0)
        memcpy(text + head, r->body, body_length);
    settings.request = (slice){text, (size_t)head + body_length};
    if (settings.websocket == BRIDGE)
        build_start(r);
}

static websocket_mode mode_of(const char *name)
{
    static const char *const names[] = {NULL, "bridge", "messages", "idle"};
    for (websocket_mode mode = BRIDGE; mode <= SILENCE; mode++)
        if (strcmp(name, names[mode]) == 0)
            return mode;
    misused("--websocket takes bridge, messages or idle");
}

static uint64_t expected_of(const char *target)
{
    const char *query = strchr(target, '?');
    for (const char *at = query; at != NULL; at = strchr(at + 1, '&'))
        if (strncmp(at + 1, "n=", 2) == 0)
            return strtoull(at + 3, NULL, 10);
    return 0;
}

typedef struct {
    uint64_t streams;
    uint64_t requests;
    uint64_t concurrency;
    uint64_t ramp;
    bool again;
    bool no_latency;
    const char *expect;
    request_parts request;
} options;

static void options_read(options *o, int argc, char **argv)
{
    enum {
        HOST, PORT, STREAMS, REQUESTS, WORKERS, METHOD, TARGET, HEADER, BODY, RAMP, AGAIN, EXPECT, OLD,
        SOCKETS, ANSWER,
    };
    static const struct option known[] = {
        {"host", required_argument, NULL, HOST},
        {"port", required_argument, NULL, PORT},
        {"streams", required_argument, NULL, STREAMS},
        {"requests", required_argument, NULL, REQUESTS},
        {"concurrency", required_argument, NULL, WORKERS},
        {"method", required_argument, NULL, METHOD},
        {"target", required_argument, NULL, TARGET},
        {"header", required_argument, NULL, HEADER},
        {"body", required_argument, NULL, BODY},
        {"ramp", required_argument, NULL, RAMP},
        {"again", no_argument, NULL, AGAIN},
        {"expect", required_argument, NULL, EXPECT},
        {"no-latency", no_argument, NULL, OLD},
        {"websocket", required_argument, NULL, SOCKETS},
        {"answer", required_argument, NULL, ANSWER},
        {NULL, 0, NULL, 0},
    };
    for (int name; (name = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        switch (name) {
        case HOST: o->request.host = optarg; break;
        case PORT: o->request.port = number(optarg); break;
        case STREAMS: o->streams = number(optarg); break;
        case REQUESTS: o->requests = number(optarg); break;
        case WORKERS: o->concurrency = number(optarg); break;
        case METHOD: o->request.method = optarg; break;
        case TARGET: o->request.target = optarg; break;
        case HEADER: add_header(&o->request, optarg); break;
        case BODY: read_body(&o->request, optarg); break;
        case RAMP: o->ramp = number(optarg); break;
        case AGAIN: o->again = true; break;
        case EXPECT: o->expect = optarg; break;
        case OLD: o->no_latency = true; break;
        case SOCKETS: settings.websocket = mode_of(optarg); break;
        case ANSWER: build_answer(number(optarg)); break;
        default: exit(2);
        }
    }
    if (settings.websocket == BRIDGE && o->request.body == NULL)
        misused("--websocket bridge takes a --body");
    if (settings.websocket != MESSAGES && settings.answer.length > 0)
        misused("--answer is for --websocket messages");
    bool one_form = (o->streams > 0) != (o->requests > 0);
    if (optind < argc || o->request.target == NULL || !one_form || o->concurrency == 0)
        misused("load --port P --target T (--streams N | --requests K); load.c tells the rest");
}

static uint64_t least(uint64_t one, uint64_t other)
{
    return one < other ? one : other;
}

static void settle_on(options *o)
{
    const request_parts *r = &o->request;
    settings.address = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)r->port)};
    if (inet_pton(AF_INET, r->host, &settings.address.sin_addr) != 1 || r->port < 1 || r->port > 65535)
        misused("--host takes an IPv4 address, --port a port");
    build_request(&o->request);
    settings.expected = o->expect != NULL ? number(o->expect) : expected_of(r->target);
    settings.latency = !o->no_latency;
    settings.exits = o->requests > 0;
    settings.repeats = settings.exits || o->again;
    settings.count = o->streams > 0 ? o->streams : least(o->requests, o->concurrency);
    settings.ramp_ns = o->ramp > 0 ? NS_PER_SECOND / o->ramp : 0;
    run.unasked = o->again && o->streams > 0 ? UINT64_MAX : o->streams + o->requests;
    run.unanswered = run.unasked;
}

// ---- The run

static void commands_ready(source *self, uint32_t events)
{
    (void)events;
    command_input *input = (command_input *)self;
    char line[COMMAND_BYTES];
    commands_receive(input);
    while (!input->ended && commands_next(input, line)) {
        if (strcmp(line, "stop") == 0)
            input->ended = true;
        else if (strcmp(line, "mark") == 0)
            counters_print(run.open, false);
    }
}

static void connections_wait(uint64_t count)
{
    run.connections = allocate(count * sizeof *run.connections);
    for (connection *c = run.connections; c < run.connections + count; c++) {
        *c = (connection){.source = {connection_ready}, .descriptor = -1};
        wait_to_open(c);
    }
}

static bool announce_ready(void)
{
    if (run.settled < settings.count)
        return false;
    printf("{\"ready\":true,\"open\":%llu}\n", (unsigned long long)run.open);
    fflush(stdout);
    return true;
}

int main(int argc, char **argv)
{
    static command_input commands = {.source = {commands_ready}};
    static options o = {.concurrency = 1, .ramp = 2000, .request.host = "127.0.0.1"};
    options_read(&o, argc, argv);
    settle_on(&o);
    raise_descriptor_limit();
    run.epoll = epoll_create1(EPOLL_CLOEXEC);
    watch(run.epoll, STDIN_FILENO, EPOLLIN, &commands.source);
    counters_reset(now_ns(), cpu_ns());
    connections_wait(settings.count);
    bool ready = settings.exits;
    while (!commands.ended && !(settings.exits && run.unanswered == 0)) {
        open_due();
        ready = ready || announce_ready();
        loop_turn(run.epoll, next_opening());
    }
    counters_print(run.open, true);
    return 0;
}
